//! ILSVRC as it is downloaded gives the images that its folders would.

use crate::support::*;
use alexnet_mp::data::ilsvrc::{archive, matlab};
use alexnet_mp::data::{Dataset, Layout};
use std::fs;
use std::io::Write;
use std::path::Path;

/// WordNet ids in the order of their numbers in the devkit, which is not that of their bytes.
const WNIDS: [&str; 3] = ["n02119789", "n01440764", "n03995372"];

/// Image number `n` of class `class`.
fn image_of(class: usize, n: u32) -> Vec<u8> {
    png(picture(class as u32 * 50 + n, 40, 32))
}

/// Class (place in [`WNIDS`]) of validation image `n`, from 1.
fn truth(n: u32) -> usize {
    (n as usize * 2 + 1) % 3
}

fn val_name(n: u32) -> String {
    format!("ILSVRC2012_val_{n:08}.JPEG")
}

const VAL_IMAGES: u32 = 7;

/// The images as folders by class.
pub fn as_folder(root: &Path) {
    for (class, wnid) in WNIDS.iter().enumerate() {
        for n in 0..5 {
            put(
                root.join(format!("train/{wnid}/{wnid}_{n}.JPEG")),
                &image_of(class, n),
            );
        }
    }
    for n in 1..=VAL_IMAGES {
        let class = truth(n);
        put(
            root.join(format!("val/{}/{}", WNIDS[class], val_name(n))),
            &image_of(class, 20 + n),
        );
    }
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

fn train_tar() -> Vec<u8> {
    let class = |(class, wnid): (usize, &&str)| {
        // Not in the order of their names.
        let files: Vec<_> = (0..5)
            .rev()
            .map(|n| (format!("{wnid}_{n}.JPEG"), image_of(class, n)))
            .collect();
        (format!("{wnid}.tar"), tar(&files))
    };
    tar(&WNIDS.iter().enumerate().map(class).collect::<Vec<_>>())
}

fn val_tar() -> Vec<u8> {
    let file = |n| (val_name(n), image_of(truth(n), 20 + n));
    tar(&(1..=VAL_IMAGES).map(file).collect::<Vec<_>>())
}

fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn matrix(class: u8, dimensions: [u32; 2], name: &str, data: &[u8]) -> Vec<u8> {
    let dimensions: Vec<u8> = dimensions.iter().flat_map(|d| d.to_le_bytes()).collect();
    let parts = [
        element(6, &[class, 0, 0, 0, 0, 0, 0, 0]),
        element(5, &dimensions),
        element(1, name.as_bytes()),
        data.to_vec(),
    ];
    element(14, &parts.concat())
}

/// meta.mat as the devkit has it: a struct array with more fields and more synsets than classes.
fn meta_mat(compressed: bool) -> Vec<u8> {
    let mut fields = Vec::new();
    for name in ["ILSVRC2012_ID", "WNID", "words"] {
        let mut name = name.as_bytes().to_vec();
        name.resize(16, 0);
        fields.extend(name);
    }
    // A small element: 4 bytes that say how long the fields' names are.
    let mut data = [5u32 | 4 << 16, 16].map(u32::to_le_bytes).concat();
    data.extend(element(1, &fields));
    for (i, wnid) in WNIDS.iter().chain(&["n00001740"]).enumerate() {
        data.extend(matrix(
            6,
            [1, 1],
            "",
            &element(9, &(i as f64 + 1.0).to_le_bytes()),
        ));
        let utf16: Vec<u8> = wnid.encode_utf16().flat_map(u16::to_le_bytes).collect();
        data.extend(matrix(4, [1, 9], "", &element(4, &utf16)));
        data.extend(matrix(4, [1, 3], "", &element(16, b"cat")));
    }
    let variable = matrix(2, [4, 1], "synsets", &data);
    let mut file = vec![b' '; 124];
    file.extend(b"\x00\x01IM");
    file.extend(match compressed {
        false => variable,
        true => {
            let mut zip = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
            zip.write_all(&variable).unwrap();
            let zip = zip.finish().unwrap();
            [
                &15u32.to_le_bytes()[..],
                &(zip.len() as u32).to_le_bytes(),
                &zip,
            ]
            .concat()
        }
    });
    file
}

fn ground_truth() -> Vec<u8> {
    let line = |n| format!("{}\n", truth(n) + 1);
    (1..=VAL_IMAGES).map(line).collect::<String>().into_bytes()
}

fn devkit() -> Vec<u8> {
    let at = |name: &str| format!("ILSVRC2012_devkit_t12/data/{name}");
    let files = [
        (
            "ILSVRC2012_devkit_t12/readme.txt".into(),
            b"read me".to_vec(),
        ),
        (at("ILSVRC2012_validation_ground_truth.txt"), ground_truth()),
        (at("meta.mat"), meta_mat(true)),
    ];
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    zip.write_all(&tar(&files)).unwrap();
    zip.finish().unwrap()
}

pub fn as_archives(root: &Path) {
    put(root.join("ILSVRC2012_img_train.tar"), &train_tar());
    put(root.join("ILSVRC2012_img_val.tar"), &val_tar());
    put(root.join("ILSVRC2012_devkit_t12.tar.gz"), &devkit());
}

fn as_kaggle(root: &Path) {
    let base = root.join("ILSVRC/Data/CLS-LOC");
    as_folder(&base);
    let mut solution = String::from("ImageId,PredictionString\n");
    for n in (1..=VAL_IMAGES).rev() {
        let wnid = WNIDS[truth(n)];
        let from = base.join(format!("val/{wnid}/{}", val_name(n)));
        fs::rename(from, base.join("val").join(val_name(n))).unwrap();
        let stem = val_name(n).replace(".JPEG", "");
        solution += &format!("{stem},{wnid} 85 1 499 272 {wnid} 1 2 3 4\n");
    }
    for wnid in WNIDS {
        let _ = fs::remove_dir(base.join("val").join(wnid));
    }
    put(root.join("LOC_val_solution.csv"), solution.as_bytes());
}

type Seen = (Vec<String>, Vec<(String, u32, Vec<u8>)>);

fn everything(set: &Dataset) -> [Seen; 2] {
    [&set.train, set.val.as_ref().unwrap()].map(|half| {
        let one = |i| (half.name(i), half.label(i), read(&**half, i).1);
        (half.classes().to_vec(), (0..half.len()).map(one).collect())
    })
}

#[test]
fn archives_and_kaggle_folders_hold_what_folders_by_class_hold() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    as_folder(&at("folder"));
    as_archives(&at("archives"));
    as_kaggle(&at("kaggle"));
    let expected = everything(&open(&at("folder")).unwrap());
    assert_eq!(expected[1].1.len(), VAL_IMAGES as usize);
    for name in [
        "archives",
        "kaggle",
        "kaggle/ILSVRC",
        "kaggle/ILSVRC/Data/CLS-LOC",
    ] {
        assert_eq!(Layout::of(&at(name)), Layout::Ilsvrc, "{name}");
        assert!(everything(&open(&at(name)).unwrap()) == expected, "{name}");
    }
}

#[test]
fn a_devkit_may_be_unpacked_and_its_meta_mat_uncompressed() {
    let root = tempfile::tempdir().unwrap();
    as_archives(root.path());
    let expected = everything(&open(root.path()).unwrap());
    fs::remove_file(root.path().join("ILSVRC2012_devkit_t12.tar.gz")).unwrap();
    let data = root.path().join("ILSVRC2012_devkit_t12/data");
    put(
        data.join("ILSVRC2012_validation_ground_truth.txt"),
        &ground_truth(),
    );
    put(data.join("meta.mat"), &meta_mat(false));
    assert!(everything(&open(root.path()).unwrap()) == expected);
}

#[test]
fn names_that_lead_elsewhere_and_links_are_never_followed() {
    let root = tempfile::tempdir().unwrap();
    put(root.path().join("secret.png"), &image_of(0, 9));
    let source = root.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    for name in ["../../up/evil.png", "/abs/evil.png", "up/../../x/evil2.png"] {
        let bytes = image_of(1, 1);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        // Written by hand: the crate's own builder refuses such names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, &bytes[..]).unwrap();
    }
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Fifo,
        tar::EntryType::Char,
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        archive
            .append_link(&mut header, "up/link.png", "../secret.png")
            .unwrap();
    }
    put(
        source.join("ILSVRC2012_img_train.tar"),
        &archive.into_inner().unwrap(),
    );
    let set = open(&source).unwrap();
    let names: Vec<_> = (0..set.train.len()).map(|i| set.train.name(i)).collect();
    assert_eq!(names, ["abs/evil.png", "up/evil.png", "x/evil2.png"]);
    assert!((0..3).all(|i| read(&*set.train, i).1 == read(&*set.train, 0).1));
    let left: Vec<_> = fs::read_dir(root.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_truncated_archive_is_found_wherever_it_was_cut() {
    let root = tempfile::tempdir().unwrap();
    as_archives(root.path());
    for (name, whole) in [
        ("ILSVRC2012_img_train.tar", train_tar()),
        ("ILSVRC2012_img_val.tar", val_tar()),
    ] {
        let path = root.path().join(name);
        // A whole archive ends with two blocks of zeros and often more.
        let end = whole
            .iter()
            .rposition(|&b| b != 0)
            .unwrap()
            .next_multiple_of(512);
        for length in (0..end).step_by(512).chain([1, 700, end - 1]) {
            fs::write(&path, &whole[..length]).unwrap();
            let error = open(root.path())
                .err()
                .unwrap_or_else(|| panic!("{name} cut at {length}"));
            assert_eq!(error.exit_code(), 3);
            let message = error.to_string();
            assert!(
                message.contains(name) && !message.contains('\n'),
                "{message}"
            );
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(open(root.path()).is_ok());
}

#[test]
fn validation_images_without_a_class_are_an_error_with_the_remedy() {
    let root = tempfile::tempdir().unwrap();
    let message = |name: &str, change: &dyn Fn(&Path)| {
        let root = root.path().join(name);
        as_archives(&root);
        change(&root);
        let error = open(&root).err().expect(name);
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    };
    let kit = "ILSVRC2012_devkit_t12.tar.gz";
    let none = message("none", &|root| fs::remove_file(root.join(kit)).unwrap());
    assert!(
        none.contains("expected ILSVRC2012_devkit_t12.tar.gz or LOC_val_solution.csv"),
        "{none}"
    );
    let cut = message("cut", &|root| {
        fs::write(root.join(kit), &devkit()[..100]).unwrap()
    });
    assert!(cut.contains(kit), "{cut}");
    let more = message("more", &|root| {
        let files = [(val_name(8), image_of(0, 0)), (val_name(1), image_of(0, 1))];
        fs::write(root.join("ILSVRC2012_img_val.tar"), tar(&files)).unwrap();
    });
    assert!(more.contains("1 of 2 images have no class among the 3 of train, the first is ILSVRC2012_val_00000008.JPEG"), "{more}");
    let csv = message("csv", &|root| {
        fs::write(root.join("LOC_val_solution.csv"), "ImageId,P\nxyz\n").unwrap()
    });
    assert!(csv.contains("LOC_val_solution.csv: line 2"), "{csv}");
    let empty = message("empty", &|root| {
        fs::write(root.join("ILSVRC2012_img_train.tar"), tar(&[])).unwrap()
    });
    assert!(empty.contains("no images"), "{empty}");
}

#[test]
fn a_broken_meta_mat_is_refused_and_never_more() {
    for compressed in [false, true] {
        let whole = meta_mat(compressed);
        let expected: Vec<_> = (1..).zip(WNIDS.map(String::from)).collect();
        assert_eq!(matlab::synsets(&whole).unwrap()[..3], expected);
        for length in 0..whole.len() - 8 {
            assert!(matlab::synsets(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            let _ = matlab::synsets(&flipped);
        }
    }
}

#[test]
fn a_tar_archive_with_any_byte_changed_gives_members_inside_it() {
    let whole = tar(&[
        ("a.png".into(), vec![1; 700]),
        ("b.png".into(), vec![2; 10]),
    ]);
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= change;
            let found = archive::members(&changed[..], 0, changed.len() as u64);
            for member in found.unwrap_or_default() {
                assert!(member.offset + member.bytes <= whole.len() as u64);
            }
        }
    }
}
