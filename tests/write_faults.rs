//! What stands at the target after the disk was full, the folder read-only, or the process killed: the old file or the new one.
//!
//! The process that suffers is this test binary, started again with [`TARGET`] set: `the_child_of_the_other_tests` is its whole work.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use per_inject::wire::{ModelFile, Piece, Rope, Sync, WireError, write};

const TARGET: &str = "PER_INJECT_TEST_TARGET";
const TIMES: &str = "PER_INJECT_TEST_TIMES";
/// How many kills have to fall between the temporary file's creation and its rename: 200 unless this says otherwise.
const KILLS: &str = "PER_INJECT_TEST_KILLS";
const CHILD: &str = "the_child_of_the_other_tests";

/// Size of the original file that the child's output copies.
const SIZE: usize = 3 << 20;

/// What a target may hold: the stamp, most of the original, the stamp.
fn version(stamp: u8) -> Rope {
    let stamp = || Piece::New(vec![stamp; 1000].into());
    Rope { pieces: vec![stamp(), Piece::Original(0..SIZE / 3), stamp(), Piece::Original(17..SIZE), stamp()] }
}

fn original() -> Vec<u8> {
    (0..u32::try_from(SIZE).unwrap()).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

#[test]
fn the_child_of_the_other_tests() {
    let Some(target) = std::env::var_os(TARGET).map(PathBuf::from) else { return };
    let times: usize = std::env::var(TIMES).unwrap().parse().unwrap();
    let source = ModelFile::open(&target.with_file_name("original")).unwrap();
    for i in 0..times {
        if let Err(error) = write(&version(b'A' + (i % 2) as u8), &source, &target, Sync::Auto) {
            assert!(matches!(error, WireError::Write { .. } | WireError::Target { .. }));
            eprintln!("{error}");
            std::process::exit(3);
        }
    }
}

/// A folder with the original, and a target that holds version A.
struct Scene {
    folder: tempfile::TempDir,
    versions: [Vec<u8>; 2],
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // For the child that is somebody else.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let original = original();
        let versions = [version(b'A').to_vec(&original), version(b'B').to_vec(&original)];
        let scene = Scene { folder, versions };
        scene.fill(scene.folder.path());
        scene
    }

    fn fill(&self, folder: &Path) {
        fs::write(folder.join("original"), original()).unwrap();
        fs::write(folder.join("target"), &self.versions[0]).unwrap();
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// This binary as a child that writes `target` over and over. `shell` runs first, in the same process.
fn child(binary: &Path, shell: &str, target: &Path, times: usize) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} exec \"$0\" \"$@\"")]).arg(binary).args(["--exact", CHILD, "--nocapture"]);
    command.env(TARGET, target).env(TIMES, times.to_string()).stdin(Stdio::null());
    command
}

fn this_binary() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn assert_failed(output: &Output, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(words.iter().any(|w| message.contains(w)), "{message:?} says nothing of {words:?}");
}

#[test]
fn a_file_that_grows_past_the_limit_leaves_the_target_as_it_was() {
    let scene = Scene::new();
    // In units of 512 bytes: right at the start, in the middle of a copied range, just before the end.
    for limit in [0, 1, 2000, 4500, scene.versions[0].len() / 512] {
        let shell = format!("trap '' XFSZ; ulimit -f {limit};");
        let output = child(&this_binary(), &shell, &scene.target(), 1).output().unwrap();
        assert_failed(&output, &["File too large"]);
        assert!(fs::read(scene.target()).unwrap() == scene.versions[0]);
        assert_eq!(names(scene.folder.path()), ["original", "target"]);
    }
}

/// A small file system of its own, where this process may mount one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(megabytes: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m,mode=755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| Tmpfs(folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_leaves_the_target_as_it_was() {
    // The test above meets the same failure everywhere; only root can also fill a real file system.
    let Some(disk) = Tmpfs::mount(8) else { return };
    let (scene, folder) = (Scene::new(), disk.0.path());
    scene.fill(folder);
    let output = child(&this_binary(), "", &folder.join("target"), 1).output().unwrap();
    assert_failed(&output, &["No space left"]);
    // An output so large that its space is reserved first.
    let source = ModelFile::open(&folder.join("original")).unwrap();
    let rope = Rope { pieces: (0..30).map(|_| Piece::Original(0..SIZE)).collect() };
    let error = write(&rope, &source, &folder.join("target"), Sync::Auto).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(fs::read(folder.join("target")).unwrap() == scene.versions[0]);
    assert_eq!(names(folder), ["original", "target"]);
}

#[test]
fn a_folder_without_write_permission_is_named_and_its_target_stays() {
    let scene = Scene::new();
    let folder = scene.folder.path();
    // Root may write everywhere, so root becomes nobody first; the binary goes to a place that nobody can reach.
    let reachable = tempfile::tempdir().unwrap();
    fs::set_permissions(reachable.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = reachable.path().join("test");
    // By a process of its own: a child that another test forks here would hold the copy open for writing until it execs, and what
    // is being written cannot be executed ("Text file busy").
    assert!(Command::new("cp").arg(this_binary()).arg(&binary).status().unwrap().success());
    fs::set_permissions(scene.target(), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = child(&binary, "", &scene.target(), 1);
    if is_root() {
        command.uid(65534).gid(65534).current_dir("/");
    }
    let output = command.output().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert_failed(&output, &["no file can be made in the folder"]);
    assert!(fs::read(scene.target()).unwrap() == scene.versions[0]);
    assert_eq!(names(folder), ["original", "target"]);

    // A file that was made read-only in a folder that is not.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(scene.target(), fs::Permissions::from_mode(0o444)).unwrap();
    let output = command.output().unwrap();
    assert_failed(&output, &["allow it with chmod u+w"]);
    assert!(fs::read(scene.target()).unwrap() == scene.versions[0]);
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_target_in_a_file_system_of_the_kernel_is_refused() {
    let rope = Rope { pieces: vec![Piece::New(b"x".to_vec().into())] };
    let error = write(&rope, &ModelFile::from_bytes(Vec::new()), Path::new("/proc/model.onnx"), Sync::Auto);
    assert!(error.unwrap_err().to_string().contains("no file can be made in the folder /proc"));
}

/// A writing child that is always waited for.
struct Writer(Child);

impl Writer {
    fn start(target: &Path) -> Self {
        let mut command = child(&this_binary(), "", target, usize::MAX);
        Writer(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Stops the child where it happens to be, so that it can be looked at.
    fn stop(&self) {
        let pid = self.0.id();
        assert!(Command::new("sh").args(["-c", &format!("kill -STOP {pid}")]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(10);
        // Every thread has to stand still: the harness runs the test in a second one.
        let is_stopped = |task: fs::DirEntry| {
            fs::read_to_string(task.path().join("stat")).unwrap().rsplit(')').next().unwrap().starts_with(" T")
        };
        while !fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|t| is_stopped(t.unwrap())) {
            assert!(Instant::now() < deadline, "the child does not stop");
            std::thread::yield_now();
        }
    }

    /// The file that the child has open in `folder` and that has not yet the name of the target.
    fn unfinished_file(&self, folder: &Path) -> Option<String> {
        fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().find_map(|fd| {
            let file = fs::read_link(fd.unwrap().path()).unwrap_or_default();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // An unnamed file shows as "#inode (deleted)".
            (file.starts_with(folder) && (name.starts_with('#') || name.starts_with(".per-inject-"))).then_some(name)
        })
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        assert_eq!(self.0.wait().unwrap().signal(), Some(9));
    }
}

#[test]
fn a_kill_at_any_moment_leaves_one_of_the_two_versions_and_no_stray_file() {
    let wanted = std::env::var(KILLS).map_or(200, |n| n.parse().unwrap());
    let scene = Scene::new();
    let folder = scene.folder.path().canonicalize().unwrap();
    let (mut between, mut unnamed, mut seen, mut kills, mut strays) = (0, 0, [0; 2], 0u64, 0u64);
    while between < wanted {
        let writer = Writer::start(&scene.target());
        // 4 to 20 ms, spread evenly: from the child's start over some ten writes.
        std::thread::sleep(Duration::from_micros(4000 + kills.wrapping_mul(7919) % 16000));
        kills += 1;
        assert!(kills < 20 * wanted, "only {between} of {kills} kills fell between creation and rename");
        // Every fourth kill comes without a stop before it, wherever the kernel then is; it is not counted.
        if kills % 4 != 0 {
            writer.stop();
            if let Some(name) = writer.unfinished_file(&folder) {
                between += 1;
                unnamed += u64::from(name.starts_with('#'));
            }
        }
        writer.kill();
        let found = fs::read(scene.target()).unwrap();
        let which = scene.versions.iter().position(|v| *v == found);
        seen[which.expect("the target is neither of the two versions")] += 1;
        for name in names(&folder).iter().filter(|n| n.starts_with(".per-inject-")) {
            strays += 1;
            fs::remove_file(folder.join(name)).unwrap();
        }
        assert_eq!(names(&folder), ["original", "target"]);
    }
    println!("{kills} kills, {between} between creation and rename, {strays} stray files, versions seen {seen:?}");
    assert!(seen.iter().all(|n| *n > 0), "the target never changed: {seen:?}");
    // Where files can be unnamed, only a kill in the microseconds between a temporary name and the rename leaves one: 0 or 1 in
    // all runs so far. With named files it would be every counted kill.
    assert!(unnamed == 0 || strays <= wanted.div_ceil(20), "{strays} stray files after {kills} kills");
}
