# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false, reportOptionalOperand=false, reportCallIssue=false
"""What comes out of an image file is what the file says, in one geometry, and a bad file is one line."""

import gzip
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.affines import voxel_sizes
from PIL import Image

from m3dspy.workspace import sources
from m3dspy.workspace.sources import _common, dicom

DICOMS = Path(pydicom.__file__).parent / "data" / "test_files"
NIFTIS = Path(nibabel.__file__).parent / "tests" / "data"
FOLDER = Path(sources.__file__).parent
CUBE = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


# ------------------------------------------------------------------------------------------------ every format
def write_nifti(path, array):
    nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0])).to_filename(path)


def write_torch(path, array):
    import torch

    torch.save(torch.from_numpy(array), path)


WRITERS = {
    "nifti": (".nii.gz", write_nifti),
    "dicom": (".dcm", lambda path, array: write_slice(path, array[..., 0])),
    "raster": (".png", lambda path, array: Image.fromarray(array[0].astype(np.uint8)).save(path)),
    "npy": (".npy", np.save),
    "torch_tensor": (".pt", write_torch),
    "pickled": (".pck", lambda path, array: path.write_bytes(pickle.dumps(array, 2))),
}


def write_slice(path, pixels, z=0.0, **tags):
    """A CT slice, 0.5 mm from column to column and 0.7 mm from row to row."""
    data = pydicom.Dataset()
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.SOPInstanceUID, data.SeriesInstanceUID = pydicom.uid.generate_uid(), "1.2.3"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.ImagePositionPatient, data.ImageOrientationPatient = [-10, -20, z], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing = [0.7, 0.5]
    data.PixelData = pixels.astype("<u2").tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def test_every_format_in_the_folder_is_in_the_contract_test():
    files = {file.stem for file in FOLDER.glob("[!_]*.py")}
    assert files == set(WRITERS)


@pytest.mark.parametrize("source", WRITERS)
def test_the_header_tells_what_read_gives(source, tmp_path):
    suffix, write = WRITERS[source]
    path = tmp_path / f"Case{suffix.upper()}"
    write(tmp_path / f"case{suffix}", CUBE)
    (tmp_path / f"case{suffix}").rename(path)

    assert sources.source_of(path) == source
    header, (array, affine) = sources.header(path), sources.read(path)
    assert array.shape == header.shape + ((header.channels,) if header.channels > 1 else ())
    assert array.dtype.name == header.dtype
    assert array.dtype.isnative
    assert affine is None or affine.shape == (4, 4)


@pytest.mark.parametrize("source", WRITERS)
@pytest.mark.parametrize("broken", ["empty", "cut short", "nonsense", "missing", "folder"])
def test_a_broken_file_is_one_line_that_names_it(source, broken, tmp_path):
    suffix, write = WRITERS[source]
    path = tmp_path / f"case{suffix}"
    write(path, CUBE)
    whole = path.read_bytes()
    path.unlink()
    if broken == "folder":
        path.mkdir()
    elif broken != "missing":
        path.write_bytes(
            {"empty": b"", "cut short": whole[: len(whole) * 2 // 3], "nonsense": b"no image " * 50}[broken]
        )

    with pytest.raises(ValueError, match=rf"^case{suffix}: [^\n]+$") as caught:
        sources.read(path)
    assert str(tmp_path) not in str(caught.value)


def test_the_folder_works_alone_and_loads_no_reader_before_it_is_needed(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "sources", ignore=shutil.ignore_patterns("__pycache__"))
    write_nifti(tmp_path / "a.nii.gz", CUBE)
    Image.fromarray(CUBE[0].astype(np.uint8)).save(tmp_path / "b.png")
    code = """
import sys; sys.path.insert(0, sys.argv[1])
import sources
heavy = {"nibabel", "PIL", "pydicom", "tifffile", "torch", "m3dspy", "pandas", "scipy"} & set(sys.modules)
print(heavy or "light", sources.read(sys.argv[1] + "/a.nii.gz")[0].sum(), sources.read(sys.argv[1] + "/b.png")[0].sum())
"""
    done = subprocess.run([sys.executable, "-I", "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["light", str(sum(range(24))), str(sum(range(12)))]


def test_an_unknown_file_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes.txt: is no image format that is known; known: .bmp, .dcm"):
        sources.source_of(tmp_path / "notes.txt")


def test_the_slices_of_a_volume_are_of_one_format(tmp_path):
    np.save(tmp_path / "a.npy", CUBE)
    Image.new("L", (2, 2)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"a.npy: is npy, but the other slices of this volume are raster"):
        sources.read([tmp_path / "b.png", tmp_path / "a.npy"])
    with pytest.raises(ValueError, match=r"a.npy: is a whole npy image"):
        sources.read([tmp_path / "a.npy"])
    with pytest.raises(ValueError, match=r"the list is empty"):
        sources.read([])


# ------------------------------------------------------------------------------------------------ NIfTI
def test_anatomical_nii_is_33_x_41_x_25_voxels_of_2_mm_to_the_left():
    header = sources.header(NIFTIS / "anatomical.nii")
    assert header == sources.Header((33, 41, 25), 1, (2.0, 2.0, 2.0), "LAS", "int16")
    array, affine = sources.read(NIFTIS / "anatomical.nii")
    assert affine[0, 0] == -2 and affine[2, 2] == 2  # x runs to the left
    stored = np.frombuffer((NIFTIS / "anatomical.nii").read_bytes()[352:], ">i2")  # big-endian, x fastest
    assert array[5, 6, 7] == stored[5 + 33 * (6 + 41 * 7)]


NAMES = ["example4d.nii.gz", "functional.nii", "example_nifti2.nii.gz", "test.mgz", "standard.nii.gz",
         "resampled_anat_moved.nii", "example4d+orig.HEAD", "phantom_varscale.PAR"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_images_in_space_are_as_nibabel_reads_them(name):
    image = nibabel.load(NIFTIS / name)
    array, affine = sources.read(NIFTIS / name)
    np.testing.assert_allclose(array, image.get_fdata(), rtol=1e-5)
    np.testing.assert_allclose(affine, image.affine)
    header = sources.header(NIFTIS / name)
    np.testing.assert_allclose(header.spacing, voxel_sizes(image.affine), atol=1e-4)
    assert header.orientation == "".join(nibabel.aff2axcodes(image.affine))


def test_time_is_a_channel():
    header = sources.header(NIFTIS / "example4d.nii.gz")
    assert (header.shape, header.channels) == ((128, 96, 24), 2)


def test_an_affine_in_microns_becomes_millimetres(tmp_path):
    image = nibabel.Nifti1Image(CUBE, np.diag([500.0, 500.0, 1000.0, 1.0]))
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "micro.nii")
    assert sources.header(tmp_path / "micro.nii").spacing == (0.5, 0.5, 1.0)


def nifti_header(shape, offset=352.0):
    head = bytearray(352)
    struct.pack_into("<i8h", head, 0, 348, *[0] * 8)
    struct.pack_into("<8h", head, 40, len(shape), *(list(shape) + [1] * 7)[:7])
    struct.pack_into("<3h8f3f", head, 70, 16, 32, 0, *[1.0] * 8, offset, 1.0, 0.0)
    head[344:348] = b"n+1\0"
    return bytes(head)


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [((32767,) * 3, "more than 4 GiB"), ((-1, 4, 4), "-1 x 4 x 4"), ((0, 4, 4), "0 x 4 x 4"), ((4,) * 7, "has 7 axes")],
)
def test_an_absurd_nifti_header_is_refused_before_any_voxel(shape, wrong, tmp_path):
    (tmp_path / "bad.nii").write_bytes(nifti_header(shape))
    with pytest.raises(ValueError, match=f"bad.nii: .*{wrong}"):
        sources.header(tmp_path / "bad.nii")


def test_a_gz_bomb_ends_at_its_limit(tmp_path):
    offset = 100 << 20  # zeros before the first voxel, 100 kB on disk
    head = nifti_header((4, 4, 4), offset)
    extension = b"\1\0\0\0" + struct.pack("<ii", offset - 352, 6)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(head[:348] + extension + bytes(offset), 1))
    with pytest.raises(ValueError, match=r"a.nii.gz: .*unpacks to more than 64 MiB before its image ends"):
        sources.header(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(head))
    with pytest.raises(ValueError, match=r"b.nii.gz: has a header of more than 64 MiB"):
        sources.header(tmp_path / "b.nii.gz")


# ------------------------------------------------------------------------------------------------ DICOM
def test_ct_small_is_in_hounsfield_units():
    array, affine = sources.read(DICOMS / "CT_small.dcm")
    stored = np.frombuffer(pydicom.dcmread(DICOMS / "CT_small.dcm").PixelData, "<i2").reshape(128, 128)
    np.testing.assert_array_equal(array, stored - 1024.0)  # slope 1, intercept -1024
    assert affine is None
    assert sources.header(DICOMS / "CT_small.dcm").spacing == (0.6615, 0.6615)


def test_ct5n_is_one_volume_from_foot_to_head():
    files = list((DICOMS / "dicomdirtests" / "98892001" / "CT5N").iterdir())
    (volume,) = dicom.series(files)
    assert [file.name for file in volume] == ["3353", "3023", "2693", "2392", "2062"]
    header = sources.header(volume)
    assert (header.shape, header.spacing, header.orientation) == ((16, 16, 5), (0.4883, 0.4883, 2.5), "LPS")
    array, affine = sources.read(volume[::-1])  # in any order
    lowest = pydicom.dcmread(volume[0])
    stored = np.frombuffer(lowest.PixelData, "<i2").reshape(16, 16)
    assert array[3, 7, 0] == stored[7, 3] * lowest.RescaleSlope + lowest.RescaleIntercept  # x is the column
    left, back, up = lowest.ImagePositionPatient
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-left, -back, up, 1])


def test_the_three_series_of_mr2_are_never_merged_nor_are_its_orientations():
    files = list((DICOMS / "dicomdirtests" / "98892003" / "MR2").iterdir())
    volumes = dicom.series(files)
    owners = [{pydicom.dcmread(file).SeriesInstanceUID for file in volume} for volume in volumes]
    assert all(len(owner) == 1 for owner in owners)
    assert len(set.union(*owners)) == 3
    assert len(volumes) == 7  # two of the three hold a sagittal, a coronal and an axial plane
    with pytest.raises(ValueError, match=r"the list mixes 7 volumes"):
        sources.read(files)


def test_a_gap_in_a_series_is_said_and_the_median_is_used():
    (volume,) = dicom.series(list((DICOMS / "dicomdirtests" / "77654033" / "CT2").iterdir()))
    with pytest.warns(UserWarning, match=r"17106: its series has slices 1.25 to 202.5 mm apart; the median, 1.25 mm"):
        header = sources.header(volume)
    assert header.spacing == (0.4883, 0.4883, 1.25)


def test_a_tilted_gantry_stays_in_the_affine(tmp_path):
    files = [
        write_slice(tmp_path / f"{k}", CUBE[0], z, ImagePositionPatient=[0, z / 2, z]) for k, z in enumerate([0, 2, 4])
    ]
    _, affine = sources.read(files)
    np.testing.assert_allclose(affine[:3, 2], [0, -1, 2])  # 2 mm up and 1 mm back, a slice


def test_files_without_suffix_are_known_by_their_magic():
    assert sources.source_of(DICOMS / "dicomdirtests" / "98892001" / "CT5N" / "2062") == "dicom"


def test_rows_and_columns_keep_their_own_spacing(tmp_path):
    path = write_slice(tmp_path / "a.dcm", CUBE[0])  # 3 rows 0.7 mm apart, 4 columns 0.5 mm apart
    assert sources.header(path).shape == (3, 4)
    assert sources.header(path).spacing == (0.7, 0.5)
    volume = [path, write_slice(tmp_path / "b.dcm", CUBE[1], z=3)]
    assert sources.header(volume).shape == (4, 3, 2)
    assert sources.header(volume).spacing == (0.5, 0.7, 3.0)


def test_monochrome1_is_turned_so_that_more_is_brighter(tmp_path):
    path = write_slice(tmp_path / "film.dcm", CUBE[0], PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(sources.read(path)[0], 4095 - CUBE[0])  # 12 bits


def test_a_place_that_is_no_number_is_one_line(tmp_path):
    path = write_slice(tmp_path / "a.dcm", CUBE[0])
    data = path.read_bytes()
    assert b"-10.0\\-20.0\\0.0" in data
    path.write_bytes(data.replace(b"-10.0\\-20.0\\0.0", b"-10.0\\-20.0\\x.0"))
    with pytest.raises(ValueError, match=r"^a.dcm: "), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources.read([path])


def test_two_slices_at_one_place_are_refused(tmp_path):
    files = [write_slice(tmp_path / f"{k}.dcm", CUBE[0], z) for k, z in enumerate([0, 1, 1])]
    with pytest.raises(ValueError, match=r"two slices at one place"):
        sources.read(files)


def test_multi_frame_doses_are_volumes():
    header = sources.header(DICOMS / "rtdose.dcm")
    assert (header.shape, header.spacing, header.orientation) == ((10, 10, 15), (10.0, 10.0, 5.0), "LPS")


@pytest.mark.parametrize("name", ["ExplVR_BigEnd.dcm", "SC_rgb_rle_16bit.dcm", "examples_palette.dcm"])
def test_colours_are_the_last_axis(name):
    header = sources.header(DICOMS / name)
    array, _ = sources.read(DICOMS / name)
    assert header.channels == 3
    assert array.shape == (*header.shape, 3)
    assert array.dtype.name == header.dtype


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("MR_truncated.dcm", r"less than expected \(8130 vs 8192 bytes\)"),
        ("SC_rgb_jpeg_gdcm.dcm", r"no decoder for JPEG Lossless, .* pip install"),
        ("rtplan.dcm", "holds no image"),
        ("no_meta.dcm", "is no DICOM file"),
    ],
)
def test_a_dicom_that_cannot_be_shown_says_why(name, wrong):
    with pytest.raises(ValueError, match=f"^{name}: .*{wrong}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources.read(DICOMS / name)


def test_a_series_leaves_out_reports_quietly_and_broken_files_aloud(tmp_path):
    good = write_slice(tmp_path / "good.dcm", CUBE[0])
    shutil.copy(DICOMS / "reportsi.dcm", tmp_path)
    (tmp_path / "empty.dcm").touch()
    with pytest.warns(UserWarning, match=r"empty.dcm: is empty; left out") as said:
        assert dicom.series(list(tmp_path.iterdir())) == [[good]]
    assert len(said) == 1


def test_a_dicom_header_of_a_terabyte_is_refused(tmp_path):
    path = write_slice(tmp_path / "huge.dcm", CUBE[0], NumberOfFrames=65535, Rows=65535, Columns=65535)
    with pytest.raises(ValueError, match=r"huge.dcm: its header claims 65535 x 65535 x 65535"):
        sources.header(path)


# ------------------------------------------------------------------------------------------------ rasters
def test_sixteen_bits_stay_sixteen(tmp_path):
    picture = np.array([[0, 40000], [65535, 1]], np.uint16)
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture).save(tmp_path / "a.tif", compression="tiff_lzw")
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(sources.read(tmp_path / name)[0], picture)
        assert sources.header(tmp_path / name) == sources.Header((2, 2), dtype="uint16")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_of_many_pages_is_a_stack_of_slices(compression, tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "stack.tif", CUBE.astype(np.uint16), photometric="minisblack", compression=compression)
    array, affine = sources.read(tmp_path / "stack.tif")
    assert affine is None
    np.testing.assert_array_equal(array, np.moveaxis(CUBE, 0, -1))
    assert sources.header(tmp_path / "stack.tif").shape == (3, 4, 2)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_is_cut_short_or_claims_too_much_is_refused(compression, tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4000, 4000), np.uint8), compression=compression)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"^a.tif: is cut short, or its header claims too much: 16000000 bytes"):
        sources.read(tmp_path / "a.tif")


def test_a_tiff_in_sixteen_bit_colour_keeps_its_colours_last(tmp_path):
    import tifffile

    colour = np.arange(5 * 4 * 3, dtype=np.uint16).reshape(5, 4, 3) * 1000
    tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(colour, -1, 0), photometric="rgb", planarconfig="separate")
    for name in ("a.tif", "planes.tif"):
        np.testing.assert_array_equal(sources.read(tmp_path / name)[0], colour)


def test_a_palette_becomes_rgb_and_a_grey_one_stays_grey(tmp_path):
    image = Image.new("P", (2, 1))
    image.putdata([0, 1])
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "colour.png")
    np.testing.assert_array_equal(sources.read(tmp_path / "colour.png")[0], [[[255, 0, 0], [0, 0, 255]]])
    image.putpalette([0, 0, 0, 200, 200, 200])
    image.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(sources.read(tmp_path / "grey.png")[0], [[0, 200]])


def test_one_bit_masks_hold_0_and_255_and_transparency_goes(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(sources.read(tmp_path / "mask.png")[0], [[255, 0]])
    Image.new("RGBA", (1, 1), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(sources.read(tmp_path / "clear.png")[0], [[[10, 20, 30]]])


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    Image.new("L", (40, 20)).save(tmp_path / "phone.jpg", exif=exif)
    assert sources.header(tmp_path / "phone.jpg").shape == (40, 20)
    assert sources.read(tmp_path / "phone.jpg")[0].shape == (40, 20)


def test_a_list_of_rasters_is_a_stack_and_slices_in_colour_turn_grey(tmp_path):
    Image.fromarray(np.array([[10, 20]], np.uint8)).save(tmp_path / "0.png")
    Image.fromarray(np.full((1, 2, 3), 77, np.uint8)).save(tmp_path / "1.png")
    slices = [tmp_path / "0.png", tmp_path / "1.png"]
    array, _ = sources.read(slices)
    np.testing.assert_array_equal(array, [[[10, 77], [20, 77]]])
    assert sources.header(slices) == sources.Header((1, 2, 2), dtype="uint8")


def test_the_slice_of_another_size_is_named(tmp_path):
    for name, size in {"0.png": (4, 4), "1.png": (4, 5), "2.png": (4, 4)}.items():
        Image.new("L", size).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"1.png: is 5 x 4 uint8, but most slices of this volume are 4 x 4 uint8"):
        sources.read(sorted(tmp_path.iterdir()))


def test_a_picture_that_claims_billions_of_pixels_is_refused_from_its_header(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"bomb.png: claims too many pixels"):
        sources.header(tmp_path / "bomb.png")


# ------------------------------------------------------------------------------------------------ npy, npz
def test_npz_gives_its_largest_array_without_leading_ones(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", small=np.zeros((2, 2)), volume=CUBE[None, None], name=np.array("x"))
    np.testing.assert_array_equal(sources.read(tmp_path / "a.npz")[0], CUBE)
    assert sources.header(tmp_path / "a.npz") == sources.Header((2, 3, 4), dtype="int16")


def test_npy_with_python_objects_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[Mine()]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a.npy: holds object instead of plain numbers"):
        sources.read(tmp_path / "a.npy")


def test_an_npy_header_of_a_terabyte_is_refused(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        head = {"descr": "<f8", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
        np.lib.format.write_array_header_1_0(file, head)
    with pytest.raises(ValueError, match=r"a.npy: its header claims 1048576 x 1048576 voxels of float64"):
        sources.header(tmp_path / "a.npy")


# ------------------------------------------------------------------------------------------------ pickles
class Mine:
    """Leaves a file behind when it is unpickled."""

    target = "PWNED"

    def __reduce__(self):
        return (eval, (f"open({self.target!r}, 'w').close()",))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", [CUBE, np.asfortranarray(CUBE), CUBE.astype(">u2"), CUBE.transpose(1, 0, 2) / 3])
def test_pickled_arrays_are_read_in_every_protocol(protocol, array, tmp_path):
    (tmp_path / "knee.pck").write_bytes(pickle.dumps({"volume": array, "id": 7}, protocol))
    got, _ = sources.read(tmp_path / "knee.pck")
    np.testing.assert_array_equal(got, array)
    assert got.dtype.isnative


def test_an_array_that_python_2_pickled_is_read(tmp_path):
    text = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nI2\ntcnumpy\ndtype\n"
        b"(S'u2'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x00\\x02\\x00\\xff\\x00\\x00\\x01'\ntb."
    )
    (tmp_path / "vol.pck").write_bytes(text)
    np.testing.assert_array_equal(sources.read(tmp_path / "vol.pck")[0], [[1, 2], [255, 256]])


HOSTILE = {
    "runs code": (pickle.dumps(Mine(), 2), "refused: loading it would run __builtin__.eval"),
    "runs a shell": (b"cos\nsystem\n(S'touch PWNED'\ntR.", "would run os.system"),
    "builds an object": (b"\x80\x02cnumpy\nndarray\n)\x81.", "instruction 0x81"),
    "imports by extension": (b"\x80\x02\x82\x01.", "instruction 0x82"),
    "changes a stand-in": (
        b"cnumpy.core.multiarray\nscalar\n(dS'a'\nI1\nsb.",
        "sets the state of something that is not an array",
    ),
    "claims a TiB": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.", r"is damaged \(EOFError\)"),
    "memo of a GiB": (b"\x80\x02Nr\xff\xff\xff\x7f.", "holds no array"),
    "odd type": (b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.", "numpy type 'O8' instead of plain numbers"),
    "odd state": (b"cnumpy\ndtype\n(S'u2'\nI0\nI1\ntR(I3\nS'?'\nNNNI-1\nI-1\nI0\ntb.", "unknown byte order"),
    "deep key": (b"}" + b")" + b"2\x86" * 60 + b"Ns.", "fills something that is not a plain dictionary"),
    "endless list": (b"]" + b"2a" * 3 + b".", "holds no array"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("suffix", [".pck", ".pt"])
def test_a_hostile_pickle_does_nothing_but_fail(name, suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, wrong = HOSTILE[name]
    path = tmp_path / f"bad{suffix}"
    if suffix == ".pt":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("bad/data.pkl", data)
    else:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^bad{suffix}: .*{wrong}"):
        sources.read(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_array_that_claims_more_than_its_bytes_is_refused(tmp_path):
    data = pickle.dumps(CUBE, 2).replace(b"K\x02K\x03K\x04\x87", b"K\x02K\x03K\xff\x87")
    (tmp_path / "lie.pck").write_bytes(data)
    with pytest.raises(ValueError, match=r"lie.pck: is cut short: its array needs 3060 bytes, 48 are there"):
        sources.read(tmp_path / "lie.pck")


# ------------------------------------------------------------------------------------------------ torch
@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "bfloat16", "int64", "int16", "int8", "uint8", "bool", "uint16", "uint32"],
)
def test_tensors_of_every_type_are_read_without_torch(dtype, tmp_path):
    import torch

    whole = torch.arange(48).reshape(4, 3, 4) % (2 if dtype == "bool" else 48)
    tensor = whole.to(getattr(torch, dtype))[1:3].transpose(0, 2)  # an offset, and strides out of order
    torch.save(tensor, tmp_path / "a.pt")
    array, _ = sources.read(tmp_path / "a.pt")
    np.testing.assert_array_equal(array, whole[1:3].transpose(0, 2).numpy())
    assert array.dtype.name == ("float32" if dtype == "bfloat16" else dtype)
    assert sources.header(tmp_path / "a.pt") == sources.Header((4, 3, 2), dtype=array.dtype.name)


def test_what_tensors_come_wrapped_in_is_read_too(tmp_path):
    import torch

    cube = torch.from_numpy(CUBE).float()
    wrapped = {
        "dict": {"image": cube[None], "label": 1, "id": "x"},
        "numpy": CUBE.astype(np.float32),
        "parameter": torch.nn.Parameter(cube),
    }
    for name, value in wrapped.items():
        torch.save(value, tmp_path / f"{name}.pt")
        np.testing.assert_array_equal(sources.read(tmp_path / f"{name}.pt")[0], CUBE)


@pytest.mark.slow  # imports monai
def test_a_monai_tensor_is_read_as_its_voxels(tmp_path):
    import torch
    from monai.data.meta_tensor import MetaTensor

    torch.save(MetaTensor(torch.from_numpy(CUBE), affine=torch.eye(4)), tmp_path / "meta.pt")
    np.testing.assert_array_equal(sources.read(tmp_path / "meta.pt")[0], CUBE)


def test_old_style_torch_files_go_through_weights_only(tmp_path):
    import torch

    torch.save(torch.from_numpy(CUBE), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(sources.read(tmp_path / "old.pt")[0], CUBE)
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Mine(), 2))
    with pytest.raises(ValueError, match=r"bad.pt: is no zip file, and torch.load\(weights_only=True\) refuses it"):
        sources.header(tmp_path / "bad.pt")


def test_the_header_of_a_tensor_reads_no_voxels(tmp_path):
    write_torch(tmp_path / "whole.pt", CUBE)
    with zipfile.ZipFile(tmp_path / "whole.pt") as old, zipfile.ZipFile(tmp_path / "bare.pt", "w") as new:
        new.writestr("whole/data.pkl", old.read("whole/data.pkl"))
    assert sources.header(tmp_path / "bare.pt").shape == (2, 3, 4)
    with pytest.raises(ValueError, match=r"bare.pt: is damaged"):
        sources.read(tmp_path / "bare.pt")


def test_a_tensor_that_repeats_one_number_a_trillion_times_is_refused(tmp_path):
    import torch

    torch.save(torch.zeros(1).expand(1 << 20, 1 << 20), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt: its header claims 1048576 x 1048576 voxels of float32"):
        sources.header(tmp_path / "a.pt")


def test_leading_ones_go_but_two_axes_stay():
    assert _common.without_leading_ones((1, 1, 5, 6)) == (5, 6)
    assert _common.without_leading_ones((1, 1, 1)) == (1, 1)
