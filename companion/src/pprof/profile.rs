//! The profile format that `go tool pprof` reads: gzip'd `profile.proto`.
//!
//! In: stacks with values. Out: one file. The messages are those of github.com/google/pprof/proto/profile.proto, fields
//! that nothing here fills left out. Strings, functions and places are written once.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

/// One place of a stack: an address, and the functions there, the innermost of inlined ones first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) lines: Vec<SourceLine>,
}

/// A line of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SourceLine {
    pub(crate) function: String,
    pub(crate) file: String,
    /// 1-based; 0 where it is not known.
    pub(crate) line: u32,
}

/// What a value is, and its unit.
pub(crate) type Kind = (&'static str, &'static str);

/// A profile being written.
#[derive(Debug)]
pub(crate) struct Builder {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    places: HashMap<Place, u64>,
}

impl Builder {
    /// With these values for each stack. The period is what lies between two samples.
    pub(crate) fn new(values: &[Kind], period: (Kind, i64)) -> Self {
        let mut builder = Self {
            profile: Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            places: HashMap::new(),
        };
        builder.text("");
        for kind in values {
            let kind = builder.kind(*kind);
            builder.profile.sample_type.push(kind);
        }
        builder.profile.period_type = Some(builder.kind(period.0));
        builder.profile.period = period.1;
        builder.profile.time_nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
        // One mapping over everything, with all that a reader could look up: it then does not search for the program.
        let program = std::env::current_exe().map_or_else(|_| "tallyd".to_owned(), |path| path.display().to_string());
        let filename = builder.text(&program);
        builder.profile.mapping.push(Mapping {
            id: 1,
            memory_limit: u64::MAX,
            filename,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
            ..Mapping::default()
        });
        builder
    }

    /// The value that a reader sees if it asks for none.
    pub(crate) fn default_value(&mut self, name: &str) {
        self.profile.default_sample_type = self.text(name);
    }

    /// How long was looked.
    pub(crate) fn duration(&mut self, duration: Duration) {
        self.profile.duration_nanos = nanos(duration);
    }

    /// Functions, as a regular expression, that are left out with all that they call.
    pub(crate) fn hide(&mut self, functions: &str) {
        self.profile.drop_frames = self.text(functions);
    }

    /// One stack, the innermost place first.
    pub(crate) fn sample(&mut self, stack: &[Place], values: &[i64], labels: &[(&str, &str)]) {
        let location_id = stack.iter().map(|place| self.place(place)).collect();
        let label = labels.iter().map(|(key, text)| Label { key: self.text(key), str: self.text(text) }).collect();
        self.profile.sample.push(Sample { location_id, value: values.to_vec(), label });
    }

    /// The file.
    pub(crate) fn finish(self) -> std::io::Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&self.profile.encode_to_vec())?;
        gzip.finish()
    }

    fn place(&mut self, place: &Place) -> u64 {
        if let Some(id) = self.places.get(place) {
            return *id;
        }
        let line = place
            .lines
            .iter()
            .map(|line| Line { function_id: self.function(&line.function, &line.file), line: i64::from(line.line) })
            .collect();
        let id = self.places.len() as u64 + 1;
        self.profile.location.push(Location { id, mapping_id: 1, address: place.address, line });
        self.places.insert(place.clone(), id);
        id
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.text(name), self.text(file));
        let next = self.functions.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            self.profile.function.push(Function { id, name, filename });
        }
        id
    }

    fn kind(&mut self, (name, unit): Kind) -> ValueType {
        ValueType { r#type: self.text(name), unit: self.text(unit) }
    }

    /// Place of a text in the table; the first is the empty one, as the format demands.
    fn text(&mut self, text: &str) -> i64 {
        if let Some(at) = self.strings.get(text) {
            return *at;
        }
        let at = i64::try_from(self.profile.string_table.len()).unwrap_or(0);
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), at);
        at
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "7")]
    drop_frames: i64,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    // Without a system name in field 3: where it is the same, pprof takes `<T as Trait>` for a C++ template and cuts it.
    #[prost(int64, tag = "4")]
    filename: i64,
}
