//! External data: which files hold a model's tensors, and whether they lie where they may.
//!
//! The rules are those of `onnx` itself, since a model could otherwise name any file of whoever loads it. The data is never read.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{WireError, WireResult};
use super::external_walk::for_each_external;
use super::model::Model;

/// A file that holds elements of one or more tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalFile {
    /// Its name as the model has it, relative to the model's folder.
    pub location: String,
    /// Where that is: folder and location joined; only the location for a model from a pipe or from memory.
    pub path: PathBuf,
    /// The tensors that it holds, in file order of the model.
    pub tensors: Vec<ExternalTensor>,
    /// What is there.
    pub data: DataFile,
}

/// A tensor whose elements are external.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTensor {
    /// Name of the tensor, or of the node whose attribute it is.
    pub name: String,
    /// First byte of its elements in the file.
    pub offset: u64,
    /// How many bytes it says that it has; `None` when it says nothing and means the rest of the file.
    pub length: Option<u64>,
}

/// What is found at the place of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFile {
    /// A regular file of so many bytes.
    Present {
        /// Its size in bytes.
        size: u64,
    },
    /// Nothing.
    Missing,
    /// Nobody knows: the model came from a pipe or from memory, which have no folder.
    Unknown,
}

impl ExternalFile {
    /// Why the model cannot be loaded with this file, if so: it is missing, or shorter than a tensor says. A warning as long as
    /// the file stays where it is; [`carry`](super::carry) refuses to carry it.
    pub fn problem(&self) -> Option<WireError> {
        let error = |tensor: &ExternalTensor, problem: String, advice| WireError::External {
            tensor: tensor.name.clone(),
            location: self.location.clone(),
            problem,
            advice,
        };
        match self.data {
            DataFile::Unknown => None,
            DataFile::Missing => self.tensors.first().map(|tensor| {
                let problem = format!("but {} is not there", self.path.display());
                error(tensor, problem, "put the data file there, or leave it out with --external keep")
            }),
            DataFile::Present { size } => self.tensors.iter().find_map(|tensor| {
                let end = tensor.offset.saturating_add(tensor.length.unwrap_or(0));
                let lacking = end.checked_sub(size).filter(|n| *n > 0)?;
                let bytes = if lacking == 1 { "byte" } else { "bytes" };
                let problem = format!("but {} is {lacking} {bytes} shorter than that tensor says", self.path.display());
                Some(error(tensor, problem, "it was cut off or belongs to another model; copy it again"))
            }),
        }
    }
}

/// Every file that holds elements of a tensor, in the order in which the model first names it: of initializers, sparse ones
/// included, of attributes, bodies, functions and training graphs.
///
/// # Errors
/// [`WireError::External`] for a location that is absolute, empty, contains `..`, leads out of the model's folder through a
/// symbolic link, or is no regular file, and for offsets and lengths that are no numbers. A file that is missing or too
/// short is no error here: see [`ExternalFile::problem`].
pub fn external_files(model: &Model) -> WireResult<Vec<ExternalFile>> {
    let mut files: Vec<ExternalFile> = Vec::new();
    let mut by_location: HashMap<String, usize> = HashMap::new();
    let folder = model.file.folder();
    for_each_external(model, &mut |name, entries| {
        let value = |key| entries.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let location = value("location").unwrap_or_default();
        let refuse = |problem: String, advice| WireError::External {
            tensor: name.to_owned(),
            location: location.to_owned(),
            problem,
            advice,
        };
        let number = |key| -> WireResult<Option<u64>> {
            let parse = |text: &str| {
                let problem = format!("with {text:?} for its {key}");
                text.trim().parse().map_err(|_| refuse(problem, "it must be a number of bytes; save the model again"))
            };
            value(key).filter(|text| !text.is_empty()).map(parse).transpose()
        };
        let tensor =
            ExternalTensor { name: name.to_owned(), offset: number("offset")?.unwrap_or(0), length: number("length")? };
        if let Some(i) = by_location.get(location) {
            files[*i].tensors.push(tensor);
            return Ok(());
        }
        if let Some(problem) = refused_by_name(location) {
            return Err(refuse(problem.into(), STAY_INSIDE));
        }
        let path = folder.map_or_else(|| location.into(), |f| f.join(location));
        let data = folder.map_or(Ok(DataFile::Unknown), |f| look(&path, f, &refuse))?;
        by_location.insert(location.to_owned(), files.len());
        files.push(ExternalFile { location: location.to_owned(), path, tensors: vec![tensor], data });
        Ok(())
    })?;
    Ok(files)
}

/// Refuses an output that would be written over one of the model's data files.
pub fn refuse_data_as_target(files: &[ExternalFile], target: &Path) -> WireResult<()> {
    let Ok(target_file) = fs::canonicalize(target) else { return Ok(()) };
    match files.iter().find(|f| fs::canonicalize(&f.path).is_ok_and(|p| p == target_file)) {
        None => Ok(()),
        Some(file) => Err(WireError::Target {
            path: target.to_owned(),
            problem: format!(
                "it holds the model's own data (tensor {}{}); choose another name",
                file.tensors.first().map_or("", |t| &t.name),
                if file.tensors.len() > 1 { " and others" } else { "" },
            ),
        }),
    }
}

const STAY_INSIDE: &str = "external data must be a regular file in the model's folder or below, as onnx demands; put it \
                           there and save the model again";

/// Why a location is refused whatever the disk holds.
fn refused_by_name(location: &str) -> Option<&'static str> {
    // Both separators, so that a model which is harmless here is so on Windows too.
    let mut parts = location.split(['/', '\\']);
    if location.is_empty() {
        Some("an empty location")
    } else if location.contains('\0') {
        Some("a name with a zero byte")
    } else if Path::new(location).has_root() || Path::new(location).is_absolute() || location.starts_with('\\') {
        Some("an absolute path")
    } else if parts.any(|part| part == "..") {
        Some("a path that climbs out of its folder with \"..\"")
    } else {
        None
    }
}

fn look(path: &Path, folder: &Path, refuse: &dyn Fn(String, &'static str) -> WireError) -> WireResult<DataFile> {
    let failed = |source| WireError::Read { path: path.to_owned(), source };
    let kind = match fs::metadata(path) {
        Ok(kind) => kind,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(DataFile::Missing);
        }
        Err(e) => return Err(failed(e)),
    };
    let real = fs::canonicalize(path).map_err(failed)?;
    if !real.starts_with(fs::canonicalize(folder).map_err(failed)?) {
        let problem = format!("which leads out of the model's folder through a symbolic link, to {}", real.display());
        return Err(refuse(problem, STAY_INSIDE));
    }
    if kind.is_dir() {
        return Err(refuse("which is a folder".into(), STAY_INSIDE));
    }
    if !kind.is_file() {
        return Err(refuse("which is a pipe, a socket or a device".into(), STAY_INSIDE));
    }
    Ok(DataFile::Present { size: kind.len() })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::onnx::tensor_proto::DataLocation;
    use crate::onnx::{
        AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, StringStringEntryProto,
        TensorProto, TrainingInfoProto,
    };
    use prost::Message;
    use std::os::unix::fs::symlink;

    fn tensor(name: &str, entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(k, v): &(&str, &str)| StringStringEntryProto { key: Some((*k).into()), value: Some((*v).into()) };
        TensorProto {
            name: Some(name.into()),
            data_location: Some(DataLocation::External.into()),
            external_data: entries.iter().map(entry).collect(),
            ..Default::default()
        }
    }

    fn at(location: &str) -> TensorProto {
        tensor("w", &[("location", location)])
    }

    fn sparse(location: &str) -> SparseTensorProto {
        SparseTensorProto { values: Some(at(location)), indices: Some(at("indices")), dims: vec![] }
    }

    fn node(attribute: AttributeProto) -> NodeProto {
        NodeProto { output: vec!["y".into()], attribute: vec![attribute], ..Default::default() }
    }

    fn graph(initializer: Vec<TensorProto>) -> GraphProto {
        GraphProto { initializer, ..Default::default() }
    }

    fn encode(graph: GraphProto) -> Vec<u8> {
        ModelProto { ir_version: Some(8), graph: Some(graph), ..Default::default() }.encode_to_vec()
    }

    /// What a model with one external tensor, saved in `folder`, leads to.
    fn look_at(folder: &Path, tensor: TensorProto) -> WireResult<Vec<ExternalFile>> {
        let path = folder.join("m.onnx");
        fs::write(&path, encode(graph(vec![tensor]))).unwrap();
        external_files(&Model::open(path).unwrap())
    }

    #[test]
    fn external_tensors_are_found_wherever_they_stand() {
        let body = GraphProto { sparse_initializer: vec![sparse("body sparse")], ..graph(vec![at("body")]) };
        let attribute = AttributeProto {
            t: Some(Box::new(tensor("", &[("location", "constant")]))),
            tensors: vec![at("tensors")],
            sparse_tensor: Some(Box::new(sparse("sparse constant"))),
            g: Some(Box::new(GraphProto {
                node: vec![node(AttributeProto { g: Some(Box::new(body)), ..Default::default() })],
                ..Default::default()
            })),
            ..Default::default()
        };
        let function = AttributeProto { t: Some(Box::new(at("function"))), ..Default::default() };
        let default = AttributeProto { t: Some(Box::new(at("default"))), ..Default::default() };
        let model = ModelProto {
            ir_version: Some(8),
            graph: Some(GraphProto {
                node: vec![node(attribute)],
                sparse_initializer: vec![sparse("sparse")],
                ..graph(vec![at("main"), at("main"), TensorProto::default()])
            }),
            functions: vec![FunctionProto {
                node: vec![node(function)],
                attribute_proto: vec![default],
                ..Default::default()
            }],
            training_info: vec![TrainingInfoProto {
                initialization: Some(graph(vec![at("initialization")])),
                algorithm: Some(graph(vec![at("algorithm")])),
                ..Default::default()
            }],
            ..Default::default()
        };
        let files = external_files(&Model::from_bytes(model.encode_to_vec()).unwrap()).unwrap();
        let found: Vec<_> = files.iter().map(|f| f.location.as_str()).collect();
        let expected = [
            "main",
            "sparse",
            "indices",
            "constant",
            "tensors",
            "sparse constant",
            "body",
            "body sparse",
            "function",
            "default",
            "initialization",
            "algorithm",
        ];
        assert_eq!(found, expected);
        assert_eq!(files[0].tensors.len(), 2);
        assert_eq!(files[3].tensors[0].name, "y", "a nameless tensor is called after its node");
        assert!(files.iter().all(|f| f.data == DataFile::Unknown && f.problem().is_none()));
    }

    #[test]
    fn a_location_outside_the_folder_is_refused_with_the_tensor_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        fs::create_dir(&inside).unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        symlink("../secret", inside.join("link")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(inside.join("fifo")).status().unwrap();
        assert!(made.success());
        for (location, reason) in [
            ("", "an empty location"),
            ("/etc/passwd", "an absolute path"),
            ("../secret", "climbs out"),
            ("sub/../../secret", "climbs out"),
            ("sub\\..\\x", "climbs out"),
            ("a\0b", "zero byte"),
            ("link", "through a symbolic link"),
            ("up/secret", "through a symbolic link"),
            (".", "a folder"),
            ("fifo", "a pipe"),
        ] {
            let message = look_at(&inside, at(location)).unwrap_err().to_string();
            assert!(message.contains(reason) && message.starts_with("tensor w keeps"), "{message}");
        }
        assert!(look_at(&inside, tensor("w", &[("offset", "0")])).unwrap_err().to_string().contains("empty location"));
        let odd = look_at(&inside, tensor("w", &[("location", "x"), ("offset", "-4")])).unwrap_err().to_string();
        assert!(odd.contains("with \"-4\" for its offset"), "{odd}");
    }

    #[test]
    fn a_missing_or_short_file_is_a_problem_that_names_the_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let entries = [("location", "w.bin"), ("offset", "4096"), ("length", "400")];
        let files = look_at(folder, tensor("w", &entries)).unwrap();
        assert_eq!(files[0].data, DataFile::Missing);
        assert!(files[0].problem().unwrap().to_string().contains("w.bin is not there"));
        for (size, problem) in [(4496, None), (4396, Some("100 bytes shorter")), (4495, Some("1 byte shorter"))] {
            fs::write(folder.join("w.bin"), vec![0; size]).unwrap();
            let found = look_at(folder, tensor("w", &entries)).unwrap()[0].problem().map(|p| p.to_string());
            assert_eq!(found.is_some(), problem.is_some());
            assert!(found.unwrap_or_default().contains(problem.unwrap_or_default()));
        }
    }

    #[test]
    fn links_that_stay_inside_and_sub_folders_are_fine() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::create_dir(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/w..1"), "data").unwrap();
        symlink("sub/w..1", folder.join("link")).unwrap();
        for location in ["sub/w..1", "./sub/w..1", "link"] {
            assert_eq!(look_at(folder, at(location)).unwrap()[0].data, DataFile::Present { size: 4 });
        }
    }

    #[test]
    fn an_output_never_replaces_the_data_of_its_own_model() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("w.bin"), "data").unwrap();
        symlink("w.bin", folder.join("link")).unwrap();
        let files = look_at(folder, at("w.bin")).unwrap();
        for name in ["w.bin", "link", "./w.bin"] {
            let message = refuse_data_as_target(&files, &folder.join(name)).unwrap_err().to_string();
            assert!(message.contains("the model's own data (tensor w)"), "{message}");
        }
        refuse_data_as_target(&files, &folder.join("new.onnx")).unwrap();
        refuse_data_as_target(&files, &folder.join("m.onnx")).unwrap();
    }
}
