//! What a crash, a failure or lack of space leaves of the simulated disk.

use super::*;

#[test]
fn a_crash_keeps_what_was_synced_and_any_part_of_the_rest() {
    let disk = MemoryDisk::new();
    let file = disk.create("f").unwrap();
    file.write_at(0, &[1; 2000]).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    file.write_at(1000, &[2; 2000]).unwrap();
    disk.create("g").unwrap();
    let images: Vec<MemoryDisk> = (0..100).map(|seed| disk.crash(seed)).collect();
    for image in &images {
        let content = image.content("f").unwrap();
        assert!(content[..1000].iter().all(|byte| *byte == 1), "a synced byte changed without being written again");
    }
    let twos = |image: &MemoryDisk| image.content("f").unwrap().iter().filter(|byte| **byte == 2).count();
    assert!(images.iter().any(|image| twos(image) == 0), "never lost");
    assert!(images.iter().any(|image| twos(image) == 2000), "never kept");
    assert!(images.iter().any(|image| (1..2000).contains(&twos(image))), "never torn");
    assert!(images.iter().any(|image| image.content("g").is_none()), "a name never lost");
    assert!(images.iter().any(|image| image.content("g").is_some()), "a name never kept");
    assert_eq!(disk.crash(7).content("f"), disk.crash(7).content("f"), "a seed repeats its crash");
}

#[test]
fn a_crash_keeps_any_subset_of_the_changes_of_names() {
    let disk = MemoryDisk::new();
    disk.create("old").unwrap().write_at(0, b"old").unwrap();
    disk.create("gone").unwrap();
    disk.sync_dir().unwrap();
    disk.create("new").unwrap();
    disk.rename("new", "old").unwrap();
    disk.remove("gone").unwrap();
    disk.create("other").unwrap();
    let names: BTreeSet<Vec<String>> = (0..300).map(|seed| disk.crash(seed).list().unwrap()).collect();
    // `new` is listed only if its creation is kept and its rename to `old` is lost. `gone` and `other` may be
    // listed or not.
    assert_eq!(names.len(), 2 * 2 * 2, "{names:?}");
    assert!(names.iter().all(|names| names.contains(&"old".to_owned())), "a rename is atomic: {names:?}");
    disk.sync_dir().unwrap();
    assert!((0..20).all(|seed| disk.crash(seed).list().unwrap() == ["old", "other"]));
}

#[test]
fn power_goes_between_two_operations() {
    let disk = MemoryDisk::new();
    disk.lose_power(2, true);
    let file = disk.create("f").unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync_data().unwrap();
    disk.create("g").unwrap();
    assert!(!disk.has_no_power());
    assert!(disk.sync_dir().is_err() && file.write_at(0, b"y").is_err() && file.sync_data().is_err());
    assert!(disk.has_no_power());
    assert!((0..200).any(|seed| disk.crash(seed).list().unwrap().is_empty()), "nothing was synced");
    let after = disk.killed();
    assert!(!after.has_no_power());
    assert_eq!(after.content("f").unwrap(), b"x");
    after.sync_dir().unwrap();
}

#[test]
fn a_failed_sync_forgets_what_it_should_have_written() {
    let disk = MemoryDisk::new();
    let file = disk.create("f").unwrap();
    disk.sync_dir().unwrap();
    disk.fail_syncs("f", 0);
    file.write_at(0, b"lost").unwrap();
    assert!(file.sync_data().is_err());
    assert_eq!(disk.content("f").unwrap(), b"lost", "it can still be read");
    assert!((0..20).all(|seed| disk.crash(seed).content("f").unwrap().is_empty()));
}

#[test]
fn a_full_disk_refuses_growth_only() {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(10));
    let file = disk.create("f").unwrap();
    file.write_at(0, &[1; 10]).unwrap();
    file.write_at(2, &[2; 8]).unwrap();
    assert_eq!(file.write_at(3, &[3; 8]).err().unwrap().kind(), io::ErrorKind::StorageFull);
    disk.remove("f").unwrap();
    disk.create("g").unwrap().write_at(0, &[1; 10]).unwrap();
}

#[test]
fn an_open_file_sees_rot_and_a_crash_keeps_it() {
    let disk = MemoryDisk::new();
    let file = disk.create("a").unwrap();
    file.write_at(0, b"sound").unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    disk.set_content("a", b"rotten".to_vec());
    let mut read = [0; 6];
    assert_eq!((file.read_at(0, &mut read).unwrap(), &read), (6, b"rotten"));
    assert_eq!(disk.crash(1).content("a").unwrap(), b"rotten");
}
