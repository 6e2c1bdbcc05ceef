# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""A template's text: what ansible.builtin.template does, without a deep copy of all variables for each file."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rendered
short_description: Render a template with the host's variables
version_added: "0.2.0"
description:
  - Does what P(ansible.builtin.template#lookup) does with its defaults. That one copies every variable of the host for
    each file, which takes most of the time where a role writes many small files.
options:
  _terms:
    description: The templates, searched for in the role's C(templates/).
    required: true
notes:
  - Every other named argument is a variable of the template, before those of the host.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Write a unit
  ansible.builtin.copy:
    dest: /etc/systemd/system/one.service
    content: "{{ lookup('flowerbed.federation.rendered', 'one.service.j2', user='one') }}"
    mode: "0644"
"""

RETURN = r"""
_raw:
  description: The text of each template.
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template


class LookupModule(LookupBase):
    """Runs on the operator's machine."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **own: Any) -> list[str]:
        """Render each template."""
        known = variables or {}
        return [self._render(term, known, own) for term in terms]

    def _render(self, term: str, variables: dict[str, Any], own: dict[str, Any]) -> str:
        file = self.find_file_in_search_path(variables, "templates", term)
        if not file:
            raise AnsibleLookupError(f"the template {term} is in no templates folder")
        places = [Path(file).parent]
        for place in variables.get("ansible_search_path", []):
            places += [Path(place) / "templates", Path(place)]
        templar = self._templar.copy_with_new_env(
            available_variables={**variables, **own}, searchpath=[str(place) for place in places]
        )
        text = trust_as_template(self._loader.get_text_file_contents(file))
        return str(templar.template(text, escape_backslashes=False))
