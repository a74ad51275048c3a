"""Run a bundle on a folder of images by MONAI's own command: python run_bundle.py BUNDLE IMAGES OUT"""

import os
import runpy
import sys

bundle, images, out = sys.argv[1:]
os.chdir(bundle)
sys.path.insert(0, bundle)
given = {"config_file": "configs/inference.json", "meta_file": "configs/metadata.json", "bundle_root": "."}
given |= {"dataset_dir": images, "output_dir": out}
sys.argv = ["monai.bundle", "run", *(word for name, value in given.items() for word in (f"--{name}", value))]
runpy.run_module("monai.bundle", run_name="__main__")
