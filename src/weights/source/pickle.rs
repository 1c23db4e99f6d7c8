//! Python's pickle format, as far as state dicts of PyTorch use it (protocols 2 to 4), read as data.
//!
//! Reading a pickle in Python runs whatever it names. Here a name means one of the few things below or is refused, and no name is ever run:
//! `collections.OrderedDict`, `torch._utils._rebuild_tensor_v2`, `torch._utils._rebuild_parameter`, and the classes of storages and dtypes.

use std::collections::HashMap;
use std::rc::Rc;

/// What was read. Containers refer to each other by place, so that no nesting, however deep, and no circle needs a stack to walk or free.
#[derive(Debug)]
pub struct Pickle {
    /// The value that it is of.
    pub root: Value,
    /// What lists, tuples and dicts hold.
    pub containers: Vec<Vec<Value>>,
}

/// A value.
#[derive(Debug, Clone)]
pub enum Value {
    /// None, truth values, floats: nothing that a state dict needs.
    Nothing,
    Int(i64),
    Text(Rc<str>),
    /// A list or a tuple: its place among the containers.
    Sequence(usize),
    /// Keys and values by turns: its place among the containers.
    Dict(usize),
    /// A name: module and name in it.
    Global(Rc<str>, Rc<str>),
    /// A storage: its class without module, and the name of its file.
    Storage {
        class: Rc<str>,
        key: Rc<str>,
    },
    Tensor(Rc<TensorRef>),
    Mark,
}

/// Where a tensor lies.
#[derive(Debug)]
pub struct TensorRef {
    /// Class of the storage, or name of the dtype.
    pub storage: Rc<str>,
    /// Name of the storage's file.
    pub key: Rc<str>,
    /// First element.
    pub offset: usize,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements from one entry of an axis to the next.
    pub strides: Vec<usize>,
}

type Read<T> = Result<T, String>;

/// Reads a pickle.
pub fn read(bytes: &[u8]) -> Read<Pickle> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), memo: HashMap::new(), containers: Vec::new() };
    loop {
        if let Some(root) = machine.step()? {
            return Ok(Pickle { root, containers: machine.containers });
        }
    }
}

struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    containers: Vec<Vec<Value>>,
}

impl Machine<'_> {
    /// One instruction; the result, where it was the last.
    fn step(&mut self) -> Read<Option<Value>> {
        let [code] = self.take()?;
        match code {
            // PROTO, FRAME
            0x80 => drop(self.take::<1>()?),
            0x95 => drop(self.take::<8>()?),
            b'.' => return self.pop().map(Some),
            b'(' => self.stack.push(Value::Mark),
            b'0' => drop(self.pop()?),
            b'N' | 0x88 | 0x89 => self.stack.push(Value::Nothing),
            // BINFLOAT
            b'G' => {
                self.take::<8>()?;
                self.stack.push(Value::Nothing);
            }
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(value.into()));
            }
            b'K' => {
                let [value] = self.take()?;
                self.stack.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(value.into()));
            }
            // LONG1
            0x8a => {
                let [length] = self.take()?;
                let value = self.long(length.into())?;
                self.stack.push(value);
            }
            b'X' => {
                let length = u32::from_le_bytes(self.take()?);
                self.text(length as usize)?;
            }
            0x8c => {
                let [length] = self.take()?;
                self.text(length.into())?;
            }
            b']' | b')' => self.sequence(Vec::new()),
            b'}' => self.dict(),
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let from = self.stack.len().checked_sub(count).ok_or_else(broken)?;
                let items = self.stack.drain(from..).collect();
                self.sequence(items);
            }
            b't' => {
                let items = self.drain_to_mark()?;
                self.sequence(items);
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Global(module, name));
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.stack.push(Value::Global(module, name)),
                _ => return Err(broken()),
            },
            b'q' => {
                let [place] = self.take()?;
                self.remember(place.into())?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.take()?);
                self.remember(place)?;
            }
            0x94 => {
                let place = u32::try_from(self.memo.len()).map_err(|_| broken())?;
                self.remember(place)?;
            }
            b'h' => {
                let [place] = self.take()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.take()?);
                self.recall(place)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.drain_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.drain_to_mark()?;
                self.set(items)?;
            }
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            // BUILD: attributes of a state dict, such as its versions.
            b'b' => drop(self.pop()?),
            other => return Err(format!("holds the instruction {other:#04x}, which no state dict needs")),
        }
        Ok(None)
    }

    fn sequence(&mut self, items: Vec<Value>) {
        self.stack.push(Value::Sequence(self.containers.len()));
        self.containers.push(items);
    }

    fn dict(&mut self) {
        self.stack.push(Value::Dict(self.containers.len()));
        self.containers.push(Vec::new());
    }

    /// What a tuple on top of the stack holds.
    fn pop_tuple(&mut self) -> Read<Vec<Value>> {
        match self.pop()? {
            Value::Sequence(place) => self.containers.get(place).cloned().ok_or_else(broken),
            _ => Err(broken()),
        }
    }

    fn take<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.bytes.get(self.at..self.at.saturating_add(N)).ok_or_else(broken)?;
        self.at += N;
        bytes.try_into().map_err(|_| broken())
    }

    fn long(&mut self, length: usize) -> Read<Value> {
        let bytes = self.bytes.get(self.at..self.at.saturating_add(length)).ok_or_else(broken)?;
        self.at += length;
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        // A larger number is a magic one, no size.
        let Some(place) = wide.get_mut(..length) else { return Ok(Value::Nothing) };
        place.copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, length: usize) -> Read<()> {
        let end = self.at.checked_add(length).ok_or_else(broken)?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(broken)?;
        self.at = end;
        let text = std::str::from_utf8(bytes).map_err(|_| broken())?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn line(&mut self) -> Read<Rc<str>> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|b| *b == b'\n').ok_or_else(broken)?;
        self.at += length + 1;
        std::str::from_utf8(rest.get(..length).unwrap_or_default()).map(Rc::from).map_err(|_| broken())
    }

    fn pop(&mut self) -> Read<Value> {
        self.stack.pop().ok_or_else(broken)
    }

    fn drain_to_mark(&mut self) -> Read<Vec<Value>> {
        let at = self.stack.iter().rposition(|v| matches!(v, Value::Mark)).ok_or_else(broken)?;
        let items = self.stack.drain(at + 1..).collect();
        self.stack.pop();
        Ok(items)
    }

    fn remember(&mut self, place: u32) -> Read<()> {
        let value = self.stack.last().ok_or_else(broken)?.clone();
        self.memo.insert(place, value);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Read<()> {
        let value = self.memo.get(&place).ok_or_else(broken)?.clone();
        self.stack.push(value);
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) -> Read<()> {
        let Some(Value::Sequence(place)) = self.stack.last() else { return Err(broken()) };
        self.containers.get_mut(*place).ok_or_else(broken)?.extend(items);
        Ok(())
    }

    /// Keys and values by turns.
    fn set(&mut self, items: Vec<Value>) -> Read<()> {
        let Some(Value::Dict(place)) = self.stack.last() else { return Err(broken()) };
        self.containers.get_mut(*place).ok_or_else(broken)?.extend(items);
        Ok(())
    }

    /// BINPERSID: ('storage', class, key, device, elements).
    fn storage(&mut self) -> Read<()> {
        let parts = self.pop_tuple()?;
        let [Value::Text(kind), Value::Global(_, class), Value::Text(key), ..] = &parts[..] else {
            return Err(broken());
        };
        if &**kind != "storage" {
            return Err(format!("refers to a {kind:?}, and storages are known"));
        }
        self.stack.push(Value::Storage { class: Rc::clone(class), key: Rc::clone(key) });
        Ok(())
    }

    /// REDUCE: what is named, with these arguments.
    fn reduce(&mut self) -> Read<()> {
        let arguments = self.pop_tuple()?;
        let Value::Global(module, name) = self.pop()? else { return Err(broken()) };
        let made = match (&*module, &*name) {
            ("collections", "OrderedDict") => {
                self.dict();
                return Ok(());
            }
            ("torch._utils", "_rebuild_parameter") => arguments.first().cloned().ok_or_else(broken)?,
            ("torch._utils", "_rebuild_tensor_v2") => {
                let [Value::Storage { class, key }, offset, shape, strides, ..] = &arguments[..] else {
                    return Err(broken());
                };
                let offset = size(offset)?;
                let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
                let (storage, key) = (Rc::clone(class), Rc::clone(key));
                Value::Tensor(Rc::new(TensorRef { storage, key, offset, shape, strides }))
            }
            _ => return Err(format!("calls {module}.{name}, which is not run")),
        };
        self.stack.push(made);
        Ok(())
    }

    fn sizes(&self, value: &Value) -> Read<Vec<usize>> {
        match value {
            Value::Sequence(place) => self.containers.get(*place).ok_or_else(broken)?.iter().map(size).collect(),
            _ => Err(broken()),
        }
    }
}

fn size(value: &Value) -> Read<usize> {
    match value {
        Value::Int(n) => usize::try_from(*n).map_err(|_| broken()),
        _ => Err(broken()),
    }
}

fn broken() -> String {
    "is cut off or broken".into()
}
