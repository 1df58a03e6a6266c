//! Reads the pickles in PyTorch checkpoints, and nothing more.
//!
//! Separate because pickle is a program format: a general reader runs whatever the file says. This one knows the few
//! instructions that data needs, and three constructors by name; anything else is refused, and nothing is ever called.
//! Containers live in one list and refer to each other by number, so that no input can make us recurse.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::ConvertError;

/// A value. Containers are numbers of a list in `Pickle`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number of more than eight bytes, least first.
    Long(Rc<[u8]>),
    Float(f64),
    Text(Rc<str>),
    Tuple(usize),
    List(usize),
    /// Keys and values in turns.
    Dict(usize),
    /// `module.name`: a constructor that has not been applied.
    Global(Rc<str>),
    /// A reference to something outside: the tuple that describes it.
    Persistent(usize),
    /// A tensor: the arguments of its constructor.
    Tensor(usize),
    /// Where a list of operands begins.
    Mark,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle {
    /// What it holds.
    pub(super) root: Value,
    /// Bytes up to and with its end.
    pub(super) length: usize,
    containers: Vec<Vec<Value>>,
}

impl Pickle {
    /// The members of a container; none for other values.
    pub(super) fn members(&self, value: &Value) -> &[Value] {
        match value {
            Value::Tuple(i)
            | Value::List(i)
            | Value::Dict(i)
            | Value::Persistent(i)
            | Value::Tensor(i) => self.containers.get(*i).map_or(&[], Vec::as_slice),
            Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Long(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Global(_)
            | Value::Mark => &[],
        }
    }
}

/// Reads the pickle at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, ConvertError> {
    let mut machine =
        Machine { bytes, at: 0, stack: vec![], memo: BTreeMap::new(), containers: vec![] };
    loop {
        let opcode = machine.take(1)?[0];
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { root, length: machine.at, containers: machine.containers });
        }
        machine.step(opcode)?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: BTreeMap<usize, Value>,
    containers: Vec<Vec<Value>>,
}

/// The opcodes are those of Python's `pickletools`, protocols 0 to 4, as far as data needs them.
impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), ConvertError> {
        match opcode {
            0x80 => _ = self.take(1)?,
            0x95 => _ = self.take(8)?,
            b'(' => self.stack.push(Value::Mark),
            b'0' => _ = self.pop()?,
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool(opcode == 0x88)),
            b'J' | b'K' | b'M' | b'G' | 0x8a | b'X' | 0x8c => self.scalar(opcode)?,
            b'}' | b']' | b')' | b't' | 0x85..=0x87 => self.container(opcode)?,
            b's' | b'u' | b'a' | b'e' => self.extend(opcode)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory(opcode)?,
            b'c' | 0x93 => self.global(opcode)?,
            b'R' => self.construct()?,
            // The state of an object: attributes of a dictionary, which no tensor needs.
            b'b' => _ = self.pop()?,
            b'Q' => {
                let Value::Tuple(number) = self.pop()? else { return Err(self.wrong("reference")) };
                self.stack.push(Value::Persistent(number));
            }
            _ => return Err(self.wrong(&format!("instruction {opcode:#04x}"))),
        }
        Ok(())
    }

    fn scalar(&mut self, opcode: u8) -> Result<(), ConvertError> {
        let value = match opcode {
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Value::Int(i64::from(self.take(1)?[0])),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            0x8a => {
                let length = self.length(1)?;
                self.long(length)?
            }
            _ => {
                let length = self.length(if opcode == b'X' { 4 } else { 1 })?;
                let text =
                    std::str::from_utf8(self.take(length)?).map_err(|_| self.wrong("text"))?;
                Value::Text(text.into())
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// A whole number of any length, in two's complement.
    fn long(&mut self, length: usize) -> Result<Value, ConvertError> {
        let bytes = self.take(length)?;
        if length > size_of::<i64>() {
            return Ok(Value::Long(bytes.into()));
        }
        let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [sign; size_of::<i64>()];
        whole[..length].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(whole)))
    }

    fn container(&mut self, opcode: u8) -> Result<(), ConvertError> {
        let members = match opcode {
            b't' => self.pop_to_mark()?,
            0x85..=0x87 => {
                let begin = self.stack.len().checked_sub(usize::from(opcode - 0x84));
                self.stack.split_off(begin.ok_or_else(|| self.wrong("stack"))?)
            }
            _ => vec![],
        };
        self.containers.push(members);
        let number = self.containers.len() - 1;
        self.stack.push(match opcode {
            b'}' => Value::Dict(number),
            b']' => Value::List(number),
            _ => Value::Tuple(number),
        });
        Ok(())
    }

    fn extend(&mut self, opcode: u8) -> Result<(), ConvertError> {
        let members = match opcode {
            b's' => {
                let begin = self.stack.len().checked_sub(2).ok_or_else(|| self.wrong("stack"))?;
                self.stack.split_off(begin)
            }
            b'a' => vec![self.pop()?],
            _ => self.pop_to_mark()?,
        };
        let is_dict = matches!(opcode, b's' | b'u');
        let number = match self.stack.last() {
            Some(Value::Dict(i)) if is_dict => *i,
            Some(Value::List(i)) if !is_dict => *i,
            _ => return Err(self.wrong("container")),
        };
        self.containers[number].extend(members);
        Ok(())
    }

    fn memory(&mut self, opcode: u8) -> Result<(), ConvertError> {
        let slot = match opcode {
            b'q' | b'h' => self.length(1)?,
            b'r' | b'j' => self.length(4)?,
            _ => self.memo.len(),
        };
        if matches!(opcode, b'h' | b'j') {
            let value = self.memo.get(&slot).cloned().ok_or_else(|| self.wrong("memory"))?;
            self.stack.push(value);
        } else {
            let value = self.stack.last().cloned().ok_or_else(|| self.wrong("stack"))?;
            self.memo.insert(slot, value);
        }
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<(), ConvertError> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            let (Value::Text(module), Value::Text(name)) = (module, name) else {
                return Err(self.wrong("name"));
            };
            (module.to_string(), name.to_string())
        };
        self.stack.push(Value::Global(format!("{module}.{name}").into()));
        Ok(())
    }

    /// The three constructors that checkpoints of plain tensors use.
    fn construct(&mut self) -> Result<(), ConvertError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(name)) = (arguments, function) else {
            return Err(self.wrong("call"));
        };
        let value = match &*name {
            "collections.OrderedDict" if self.containers[arguments].is_empty() => {
                self.containers.push(vec![]);
                Value::Dict(self.containers.len() - 1)
            }
            "torch._utils._rebuild_tensor_v2" => Value::Tensor(arguments),
            "torch._utils._rebuild_parameter" => self.containers[arguments]
                .first()
                .cloned()
                .ok_or_else(|| self.wrong("parameter"))?,
            other => return Err(self.wrong(&format!("constructor `{other}`"))),
        };
        self.stack.push(value);
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ConvertError> {
        let end = self.at.checked_add(length);
        let taken =
            end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| self.wrong("end"))?;
        self.at += length;
        Ok(taken)
    }

    fn pop(&mut self) -> Result<Value, ConvertError> {
        self.stack.pop().ok_or_else(|| self.wrong("stack"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, ConvertError> {
        let mark = self
            .stack
            .iter()
            .rposition(|v| *v == Value::Mark)
            .ok_or_else(|| self.wrong("stack"))?;
        let members = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(members)
    }

    fn line(&mut self) -> Result<String, ConvertError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|b| *b == b'\n').ok_or_else(|| self.wrong("name"))?;
        let line = std::str::from_utf8(&rest[..length]).map_err(|_| self.wrong("name"))?;
        self.at += length + 1;
        Ok(line.to_owned())
    }

    /// A length or number of one or four bytes.
    fn length(&mut self, size: usize) -> Result<usize, ConvertError> {
        Ok(self.take(size)?.iter().rev().fold(0, |n, b| (n << 8) | usize::from(*b)))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ConvertError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn wrong(&self, what: &str) -> ConvertError {
        ConvertError::new(format!(
            "not a checkpoint of plain tensors: unexpected {what} at byte {}",
            self.at
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_with_shared_references() {
        // pickle.dumps({"a": [1, 300, -2, 1.5, True, None], "b": (1,)}, 2), then the list once more from memory.
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01M,\x01J\xfe\xff\xff\xffG?\xf8\x00\x00\x00\x00\x00\x00\x88NeX\x01\x00\x00\x00bq\x03K\x01\x85q\x04X\x01\x00\x00\x00ch\x02u.rest";
        let pickle = read(bytes).unwrap();
        assert_eq!(pickle.length, bytes.len() - "rest".len());
        let members = pickle.members(&pickle.root);
        assert_eq!(members.len(), 6);
        let expected = [
            Value::Int(1),
            Value::Int(300),
            Value::Int(-2),
            Value::Float(1.5),
            Value::Bool(true),
            Value::None,
        ];
        assert_eq!(pickle.members(&members[1]), expected);
        assert_eq!(members[1], members[5]);
    }

    #[test]
    fn a_call_of_anything_else_is_refused_by_name() {
        let error =
            read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap_err().to_string();
        assert!(error.contains("`os.system`"), "{error}");
    }

    #[test]
    fn damaged_input_is_an_error_wherever_it_ends() {
        let whole = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00a\x8a\x02\x01\x02u.";
        assert!(read(whole).is_ok());
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        for garbage in
            [&b"t."[..], b"\x86.", b"s.", b"h\x05.", b"R.", b"\xff.", b"Q.", b"X\xff\xff\xff\xff."]
        {
            assert!(read(garbage).is_err());
        }
    }

    #[test]
    fn nesting_without_end_does_no_harm() {
        let mut bytes = b"N".to_vec();
        bytes.extend(vec![0x85; 1_000_000]);
        bytes.push(b'.');
        assert!(matches!(read(&bytes).unwrap().root, Value::Tuple(_)));
    }
}
