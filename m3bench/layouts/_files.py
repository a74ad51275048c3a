"""Files of layouts, written so that the same content has the same bytes: pictures, DICOM slices, tables."""

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom

Row = Mapping[str, object]


def save_picture(path: Path, image: NDArray) -> None:
    """0 to 1 as an 8-bit picture, in the format of the suffix."""
    from PIL import Image

    Image.fromarray((image * 255).round().astype(np.uint8)).save(path)


def save_mask(path: Path, mask: NDArray) -> None:
    from PIL import Image

    Image.fromarray(mask).save(path)


def save_slice(path: Path, pixels: NDArray, series: str, number: int, modality: str) -> None:
    """One DICOM slice. Args: pixels: (rows, columns), whole numbers.  series: a unique id.  number: from 1; 3 mm apart."""  # noqa: E501
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

    kind = CTImageStorage if modality == "CT" else MRImageStorage
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, UID(f"{series}.{number}")
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID("1.2.826.0.1.3680043.8.498.1")
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = kind, f"{series}.{number}", series
    dataset.Modality, dataset.InstanceNumber = modality, number
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing, dataset.SliceThickness = [2.0, 2.0], 3.0
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0.0, 0.0, 3.0 * number], [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = pixels.astype("<i2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


# ------------------------------------------------------------------------------------------------ tables
def save_table(path: Path, rows: Sequence[Row]) -> None:
    """CSV or TSV, XLSX of one sheet of text cells, or JSON records, by the suffix."""
    match path.suffix:
        case ".json":
            phantom.save_json(path, list(rows))
        case ".xlsx":
            _save_sheet(path, [list(rows[0]), *(row.values() for row in rows)])
        case suffix:
            text = io.StringIO(newline="")
            writer = csv.DictWriter(
                text, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)
            path.write_text(text.getvalue(), newline="")


def _save_sheet(path: Path, lines: Iterable[Iterable[object]]) -> None:
    """A workbook without dates or versions in it, which a library would write."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    cells = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{escape(str(cell))}</t></is></c>' for cell in line) + "</row>"
        for line in lines
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}.sheet.main+xml"/>'
        f'<Override PartName="/xl/sheet1.xml" ContentType="{kinds}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="rId1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}">'
        '<sheets><sheet name="cases" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="rId1" Type="{office}/worksheet" Target="sheet1.xml"/></Relationships>',
        "xl/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)
