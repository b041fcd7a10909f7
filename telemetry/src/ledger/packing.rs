//! Definitions and samples in messages that stay below the manager's limit.

use prost::Message as _;
use shardmeter_proto::v1::{Definitions, FamilyDefinition, Samples, SeriesDefinition};

/// What a message costs besides its definitions or samples: tags and lengths of the oneof, of the frame's own fields
/// and of its four columns (62 bytes at most).
const ENVELOPE: usize = 64;
/// A field's tag and a length below 2^28.
const FIELD: usize = 5;
/// A series id in a column.
const ID: usize = 5;
/// A value in a column.
const VALUE: usize = size_of::<f64>();

/// Whether a series can be defined and reported in messages of up to `limit` bytes.
pub(super) fn fits(
    family: &FamilyDefinition,
    series: &SeriesDefinition,
    columns: usize,
    limit: usize,
) -> bool {
    let definition = ENVELOPE + header_size(family) + definition_size(series);
    definition.max(ENVELOPE + sample_size(columns)) <= limit
}

fn header_size(family: &FamilyDefinition) -> usize {
    FIELD + family.encoded_len()
}

fn definition_size(series: &SeriesDefinition) -> usize {
    FIELD + series.encoded_len()
}

fn sample_size(columns: usize) -> usize {
    ID + columns * VALUE
}

/// Gathers definitions into as few messages as the limit allows.
pub(super) struct DefinitionPacker {
    limit: usize,
    size: usize,
    full: Vec<Definitions>,
    open: Definitions,
}

impl DefinitionPacker {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, size: ENVELOPE, full: Vec::new(), open: Definitions::default() }
    }

    /// Adds one series of the family that `header` introduces.
    pub(super) fn push(&mut self, header: &FamilyDefinition, series: SeriesDefinition) {
        let series_size = definition_size(&series);
        let continues = self.open.families.last().is_some_and(|last| last.name == header.name);
        let wanted = if continues { series_size } else { series_size + header_size(header) };
        if self.size + wanted > self.limit && !self.open.families.is_empty() {
            self.full.push(std::mem::take(&mut self.open));
            self.size = ENVELOPE;
        }
        match self.open.families.last_mut() {
            Some(last) if last.name == header.name => last.series.push(series),
            _ => {
                self.size += header_size(header);
                self.open
                    .families
                    .push(FamilyDefinition { series: vec![series], ..header.clone() });
            }
        }
        self.size += series_size;
    }

    pub(super) fn finish(mut self) -> Vec<Definitions> {
        if !self.open.families.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

/// The columns of one message.
#[derive(Default)]
pub(super) struct Part {
    pub(super) samples: Samples,
    pub(super) removed: Samples,
}

/// Gathers samples into as few parts as the limit allows.
pub(super) struct SamplePacker {
    limit: usize,
    size: usize,
    full: Vec<Part>,
    open: Part,
}

impl SamplePacker {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, size: ENVELOPE, full: Vec::new(), open: Part::default() }
    }

    pub(super) fn push(&mut self, id: u32, removed: bool, values: &[f64]) {
        let wanted = sample_size(values.len());
        if self.size + wanted > self.limit && self.size > ENVELOPE {
            self.full.push(std::mem::take(&mut self.open));
            self.size = ENVELOPE;
        }
        self.size += wanted;
        let samples = if removed { &mut self.open.removed } else { &mut self.open.samples };
        samples.series.push(id);
        samples.values.extend_from_slice(values);
    }

    /// All parts: one at least.
    pub(super) fn finish(mut self) -> Vec<Part> {
        self.full.push(self.open);
        self.full
    }
}

/// A column pair for the wire, where an empty one is left out.
pub(super) fn stated(samples: Samples) -> Option<Samples> {
    (!samples.series.is_empty()).then_some(samples)
}
