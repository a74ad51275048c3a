"""What the Module Architect is asked."""

import dspy

from m3dspy.signatures.values import Catalogue, Design, Fingerprint, IndexSummary, Machine, Plan


class DesignTraining(dspy.Signature):
    """Design one training run: template, network, how images are brought into shape, and what is worth tuning.

    Think like the author of nnU-Net: let the data decide.
    - Size and spacing: cover the anatomy that carries the label at the coarsest resolution that still shows it. For
      masks, resample to the median spacing and take a patch a few times larger than the smallest structure.
    - Intensity: a fixed window only for CT whose files are all in HU; percentile per image when units are mixed or
      unknown; z-score per image for MR.
    - Mirror an axis only if no label tells its two sides apart. Axis 0 is left-right in 3D; in a 2D image axis 1 is.
    - On a CPU, a training that ends within minutes: a small network, images of about 80 thousand voxels or patches of
      48 x 48 x 32, some 500 steps. For masks on a GPU, what fills half of it: a strong network, nnU-Net's patch and
      batch (in 8 gigabytes two patches of 128 x 128 x 128 voxels), 250 steps an epoch, 15 thousand steps in all.
    - The request may ask for a quick try, or for accuracy before speed.
    - Few cases need more epochs, stronger augmentation and more weight decay than many.
    - An anomaly_detection: `shots` as in the plan, 3 channels, size 240 x 240, intensity unit for 8-bit pictures, else
      window or percentile; about 20 epochs, batch 8, learning rate 1e-3. The preset `paper` only where the request asks
      to reproduce the paper, with its own loss, batch 1 and 50 epochs.
    - A report_generation sees the whole image, 128 x 128 or a small volume, and writes word by word: mirror no
      left-right axis, and train longer than for a classification.
    - A template that `needs` a package only where the request asks for it by name: it plans size, spacing and batch
      itself, so that yours do not count; tune nothing, and on a CPU take its preset `small`.
    - `space` names a few settings that matter (learning rate first), in ranges around the values you chose.
    """

    request: str = dspy.InputField(desc="what the clinician wrote")
    plan: Plan = dspy.InputField(desc="the task")
    index: IndexSummary = dspy.InputField(desc="cases and patients a split, cases a class")
    fingerprint: Fingerprint = dspy.InputField(desc="shapes, spacings, intensities")
    machine: Machine = dspy.InputField(desc="what the training runs on")
    catalogue: Catalogue = dspy.InputField(desc="the only templates and networks there are, with their settings")
    complaint: str = dspy.InputField(desc="what was wrong with the last design; empty at first")
    design: Design = dspy.OutputField(desc="one complete run")
