#!/usr/bin/env bash
# The floor: what `flowerbed up` does after the machines are there, as a plain script over SSH without Ansible, TLS
# renewal, checks or idempotence. Prints one line per phase.
#
#   floor.sh FEDERATION_FOLDER RELEASE_ARCHIVE COORDINATOR SITE...      (addresses)
set -euo pipefail
folder=$1 archive=$2 coordinator=$3
shift 3
sites=("$@")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
options=(-i "$folder/secrets/ssh/id_ed25519" -o "UserKnownHostsFile=$folder/.state/known_hosts" -o BatchMode=yes
    -o ControlMaster=auto -o "ControlPath=$work/%C" -o ControlPersist=60s -o LogLevel=ERROR)
on() { ssh "${options[@]}" "root@$1" "${@:2}"; }
to() { scp -q "${options[@]}" "$2" "root@$1:$3"; }
each() { for address in "${@:2}"; do "$1" "$address" & done; wait; }
phase() { printf '%s %.1f\n' "$1" "$(python3 -c "print($(date +%s.%N) - $begin)")"; begin=$(date +%s.%N); }
begin=$(date +%s.%N)

install() {
    to "$1" "$archive" /var/tmp/release.tar
    on "$1" bash -s <<'REMOTE'
set -e
mkdir -p /opt/flower/floor/in && cd /opt/flower/floor/in && tar xf /var/tmp/release.tar
python3 -m zipfile -e wheels/uv-*.whl uv && uv=$(find uv -name uv -type f) && chmod +x "$uv"
"$uv" venv -q --python /usr/bin/python3 /opt/flower/floor/venv
"$uv" pip install -q --offline --no-index --find-links wheels --no-deps --require-hashes \
    --python /opt/flower/floor/venv/bin/python -r release.lock
python3 -m zipfile -e bytecode.zip /opt/flower/floor/venv
rm -rf /var/tmp/release.tar
useradd -r flower-floor 2>/dev/null || true
REMOTE
}
each install "$coordinator" "${sites[@]}"
phase install

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=floor -keyout "$work/key" \
    -out "$work/crt" -addext "subjectAltName=IP:$coordinator,IP:127.0.0.1" 2>/dev/null
to "$coordinator" "$work/key" /opt/flower/floor/key
to "$coordinator" "$work/crt" /opt/flower/floor/crt
unit='--setenv=FLWR_TELEMETRY_ENABLED=0 --setenv=FLWR_DISABLE_UPDATE_CHECK=1 --setenv=PATH=/opt/flower/floor/venv/bin:/usr/bin:/bin'
on "$coordinator" "systemd-run -q --unit=floor-superlink $unit --setenv=FLWR_HOME=/root/floor \
    /opt/flower/floor/venv/bin/flower-superlink --host 0.0.0.0 --port 8000 --ssl-ca-certfile /opt/flower/floor/crt \
    --ssl-certfile /opt/flower/floor/crt --ssl-keyfile /opt/flower/floor/key --database /root/floor.db \
    --enable-supernode-auth --disable-runtime-dependency-installation
    until (echo >/dev/tcp/127.0.0.1/8000) 2>/dev/null; do sleep 0.2; done"
phase superlink

key() {
    on "$1" 'ssh-keygen -q -t ecdsa -b 384 -N "" -f /root/floor_node; cat /root/floor_node.pub' >"$work/$1.pub"
    to "$1" "$work/crt" /opt/flower/floor/crt
}
each key "${sites[@]}"
on "$coordinator" "mkdir -p /root/floor_cli && printf '[superlink]\ndefault = \"x\"\n[superlink.x]\naddress = \"127.0.0.1:8000\"\nroot-certificates = \"/opt/flower/floor/crt\"\n' >/root/floor_cli/config.toml"
for address in "${sites[@]}"; do
    to "$coordinator" "$work/$address.pub" "/root/$address.pub"
    on "$coordinator" "FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_HOME=/root/floor_cli \
        /opt/flower/floor/venv/bin/flwr supernode register /root/$address.pub x --format json" >/dev/null
done
phase register

start() {
    on "$1" "systemd-run -q --unit=floor-supernode $unit --setenv=FLWR_HOME=/root/floor \
        /opt/flower/floor/venv/bin/flower-supernode --superlink $coordinator:8000 \
        --root-certificates /opt/flower/floor/crt --auth-supernode-private-key /root/floor_node"
}
each start "${sites[@]}"
until [ "$(on "$coordinator" "FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_HOME=/root/floor_cli \
    /opt/flower/floor/venv/bin/flwr supernode list x --format json" | grep -o '"online"' | wc -l)" = "${#sites[@]}" ]; do
    sleep 0.2
done
phase online
