"""A Flower app: is a breast tumour malignant? Hospitals train one model and keep their patients' data."""
