//! The catalog of kernels: every WGSL file, and what fills the slots of a kernel.
//!
//! A file in `shaders/step`, `select`, `guard`, `matrix`, `transfer` or `telemetry` holds an entry point. What it imports from
//! `package::base`, `package::policy`, `package::access` and the other slots depends on a `Config`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use smart_default::SmartDefault;

use super::compact::wgsl;
pub use super::linker::Kernel;
use super::linker::{File, link};
use super::tables;
use crate::recipe::base::{BaseKind, Per, Recall, StateBinding, Z_OFFSET};
use crate::recipe::launch::LaunchShape;
use crate::recipe::matrix::Matmul;
use crate::recipe::precision::Precision;
use crate::recipe::state::StateFormat;

macro_rules! files {
    ($($path:literal)*) => { &[$(($path, wgsl!(include_str!(concat!("../../shaders/", $path, ".wgsl"))))),*] };
}

/// Every WGSL file, by its path in `shaders/`.
const FILES: &[(&str, &str)] = files![
    "access/bf16" "access/chunk_quarter" "access/chunk_whole" "access/f16" "access/grad_half_scalar" "access/grad_half_vec4" "access/grad_scalar" "access/grad_vec4"
    "access/notes_own" "access/notes_shared" "access/offset_scalar" "access/offset_vec4" "access/param_scalar" "access/param_vec4"
    "access/single_f32" "access/single_half" "access/single_split" "access/stepped_f32" "access/stepped_half" "access/bits_scalar" "access/bits_shared" "access/bits_vec4" "access/low_shared" "access/low_vec4" "access/param_half" "access/param_split" "access/average_f32" "access/average_half" "access/swap_halves" "access/swap_rounded" "access/swap_whole"
    "base/adafactor" "base/adafactor_lines" "base/adafactor_rate" "base/adafactor_vectors" "base/adagrad" "base/adagrad_norm_rate" "base/adago_rate" "base/adamomentum" "base/adamw" "base/adan" "base/lamadam_rate" "base/lion" "base/madam" "base/momentum" "base/muon_rate"
    "base/nadam" "base/namo_d_lines" "base/namo_rate" "base/normuon_lines" "base/orthogonal" "base/orthogonal_lines" "base/radam" "base/rmsprop" "base/schedule_free_adamw" "base/schedule_free_rate" "base/sgd"
    "correction/adafactor" "correction/adagrad" "correction/adam" "correction/adan" "correction/nadam" "correction/namo" "correction/none"
    "correction/radam" "correction/schedule_free" "correction/sgd"
    "guard/guard" "guard/norm"
    "lib/averaged" "lib/bins" "lib/bracket" "lib/candidates" "lib/complement" "lib/coupled" "lib/far" "lib/find_bin"
    "lib/flags" "lib/gradients" "lib/lines" "lib/order"
    "lib/largest" "lib/lengths" "lib/list" "lib/mark" "lib/mark_quarter" "lib/mask" "lib/notes" "lib/observations" "lib/rates" "lib/revisit" "lib/sampling" "lib/search" "lib/skip"
    "lib/bytes" "lib/narrow_at_random" "lib/noise" "lib/halves" "lib/split" "lib/step" "lib/sum" "lib/sum_chunk" "lib/tables" "lib/totals"
    "matrix/advance_registers" "matrix/advance_subgroups" "matrix/advance_tiles" "matrix/enter" "matrix/gram_registers"
    "matrix/gram_subgroups" "matrix/gram_tiles" "matrix/leave" "matrix/measure" "matrix/positions" "matrix/products"
    "matrix/registers" "matrix/staged_f16" "matrix/staged_f32" "matrix/tiles" "matrix/totals"
    "policy/cautious" "policy/grams" "policy/mgup" "policy/plain"
    "recall/sign" "recall/state"
    "select/prove" "select/rank_sample" "select/recount" "select/repair" "select/sample" "select/settle"
    "selection/cut" "selection/mask" "selection/none" "selection/notes" "selection/positive" "selection/random"
    "sink/averaged" "sink/correct_averaged" "sink/correct_notes" "sink/correct_param" "sink/direction" "sink/direction_and_mask" "sink/direction_and_mask_small"
    "sink/finish_averaged" "sink/finish_notes" "sink/finish_param" "sink/param"
    "state/next_exact" "state/next_rounded" "state/next_rounded_sign"
    "step/line_sums" "step/lines" "step/prepare" "step/rate" "step/row_moments" "step/score_mask" "step/small" "step/small_wide" "step/stream" "step/stream_exact" "step/stream_exact_quarter" "step/update_sums"
    "telemetry/moved" "telemetry/observe" "telemetry/report"
    "transfer/average" "transfer/exchange" "transfer/track" "transfer/clear" "transfer/copy" "transfer/gather" "transfer/round" "transfer/widen"
];

/// What fills the slots of a kernel, and its constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, SmartDefault)]
pub(crate) struct Config {
    /// Fills `base`, `state`, `recall` and `rate`.
    pub base: BaseKind,
    /// Whether the orthogonalized directions take the place of the base.
    pub orthogonal: bool,
    /// Files of these slots.
    #[default("plain")]
    pub policy: &'static str,
    /// The text of a custom policy. `None` for a built-in policy.
    pub custom_policy: Option<&'static str>,
    #[default("none")]
    pub selection: &'static str,
    #[default("param")]
    pub sink: &'static str,
    /// Whether several workgroups reach the notes of a chunk.
    pub shared_notes: bool,
    /// Whether several lanes reach the parameters of a vector of four.
    pub shared_vectors: bool,
    /// Whether parameters and gradients are reached four at a time. One at a time, nothing after the last coordinate is touched.
    #[default(true)]
    pub vectorized: bool,
    /// Whether parameters are bf16 without masters.
    pub rounded: bool,
    /// Whether parameters are bf16, and their masters keep only what these lack.
    pub split: bool,
    /// Whether averages over the steps are bf16.
    pub half_averages: bool,
    /// How states per coordinate are stored.
    pub state: StateFormat,
    /// How gradients, or parameters in their place, are stored.
    pub format: Precision,
    #[default(Matmul::Tiles)]
    pub matmul: Matmul,
    pub shape: LaunchShape,
    /// Whether a workgroup has a quarter of a chunk: in kernels that step or copy coordinates, on GPUs.
    pub quarters: bool,
    /// Whether a chunk has 256 lanes: in kernels that sum over chunks, on GPUs.
    pub wide: bool,
    pub constants: Constants,
}

/// Texts of kernels for CPUs, and what takes their place on GPUs.
const GPU: [(&str, &str); 3] = [
    ("@workgroup_size(32)", "@workgroup_size(256)"),
    ("SUM_LANES: u32 = 32u", "SUM_LANES: u32 = 256u"),
    ("for (var j = lane; 4u * j < chunk.len; j += LANES) {", "let j = lane;\n        if 4u * j < chunk.len {"),
];

/// The text of the size of blocks of products, and what takes its place in large blocks.
const LARGE: (&str, &str) = ("BLOCK: u32 = 64u", "BLOCK: u32 = 128u");

/// The number of kernels with custom texts at which unused ones are dropped. Exact selection has about 20 kernels.
const MOST_CUSTOM: usize = 256;

/// The pipeline constants that plans set, as WGSL names them.
const CONSTANTS: [&str; 14] = [
    "ADDS",
    "AHEAD",
    "AS_IS",
    "BACK",
    "COUNTS",
    "GUARDED",
    "LENGTHS",
    "LIMITED",
    "POLYNOMIAL",
    "RATED",
    "SKIPS",
    "STOCHASTIC",
    "SYMMETRIC",
    "TWO_FACTORS",
];

/// Which of [`CONSTANTS`] are true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Constants([bool; CONSTANTS.len()]);

impl Constants {
    /// The same with another value of this one.
    pub(crate) fn with(mut self, name: &str, value: bool) -> Self {
        self.0[Self::number(name)] = value;
        self
    }

    fn number(name: &str) -> usize {
        let known = CONSTANTS.iter().position(|known| *known == name);
        known.unwrap_or_else(|| panic!("nothing sets the constant `{name}`"))
    }
}

impl Config {
    /// The kernel of an entry point. Kernels without custom texts are linked only once per process.
    pub(crate) fn kernel(self, entry: &'static str) -> Arc<Kernel> {
        type Linked = HashMap<(&'static str, Config), Arc<Kernel>>;
        static LINKED: LazyLock<Mutex<Linked>> = LazyLock::new(Mutex::default);
        let mut linked = LINKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = linked.get(&(entry, self)) {
            return kernel.clone();
        }
        // A program may try any number of custom texts, so kernels that no optimizer uses are dropped.
        if linked.keys().filter(|(_, config)| config.is_custom()).count() >= MOST_CUSTOM {
            linked.retain(|(_, config), kernel| !config.is_custom() || Arc::strong_count(kernel) > 1);
        }
        let kernel = Arc::new(self.link(entry));
        linked.insert((entry, self), kernel.clone());
        kernel
    }

    /// Bytes of states per coordinate.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.base.state_bytes(self.state)
    }

    fn is_custom(&self) -> bool {
        self.base.row().custom.is_some() || self.custom_policy.is_some()
    }

    fn link(&self, entry: &str) -> Kernel {
        let kernel = link(entry, &|path| self.find(path), &|name| self.constant(name));
        kernel.unwrap_or_else(|error| panic!("{error}"))
    }

    fn constant(&self, name: &str) -> bool {
        match name {
            _ if CONSTANTS.contains(&name) => self.constants.0[Constants::number(name)],
            _ => self.base.row().constants.contains(&name),
        }
    }

    /// The file of a module.
    fn find(&self, path: &str) -> Option<File> {
        let (row, is_matrix) = (self.base.row(), self.base.is_matrix());
        let either = |is: bool, file: &'static str, other: &'static str| if is { file } else { other };
        let custom = match path {
            "package::base" => row.custom.map(|custom| &custom.definition.module[..]),
            "package::correction" => row.custom.map(|custom| &custom.definition.correction[..]),
            "package::policy" if self.policy == "custom" => self.custom_policy,
            _ => None,
        };
        if let Some(text) = custom {
            return Some(File { name: format!("(custom {})", &path["package::".len()..]), text: text.into() });
        }
        let (folder, file) = match path.strip_prefix("package::")? {
            "tables" => {
                let text = format!("{}{}", tables::WGSL, text("lib/tables")?);
                return Some(File { name: "lib/tables.wgsl".to_owned(), text: text.into() });
            }
            "state" => return Some(File { name: "(state)".to_owned(), text: self.state_module().into() }),
            "base" if self.orthogonal => ("base", either(row.lines.is_some(), "orthogonal_lines", "orthogonal")),
            "base" => ("base", row.shader),
            "lines" => ("base", row.lines?.shader),
            "rate" => ("base", row.rate?),
            "correction" => ("correction", row.correction),
            "next" if self.state.is_f32() || self.orthogonal => ("state", "next_exact"),
            "next" => ("state", either(row.recall == Recall::Sign, "next_rounded_sign", "next_rounded")),
            "recall" => ("recall", either(row.recall == Recall::Sign, "sign", "state")),
            "policy" => ("policy", self.policy),
            "selection" => ("selection", self.selection),
            "sink" => ("sink", either(row.averages, "averaged", self.sink)),
            "finish" if row.averages => ("sink", "finish_averaged"),
            "correct" if row.averages => ("sink", "correct_averaged"),
            "finish" => ("sink", either(is_matrix, "finish_notes", "finish_param")),
            "correct" => ("sink", either(is_matrix, "correct_notes", "correct_param")),
            "access::chunk" => ("access", either(self.quarters, "chunk_quarter", "chunk_whole")),
            "lib::mark" => ("lib", either(self.quarters, "mark_quarter", "mark")),
            "access::bits" if self.shared_vectors => ("access", "bits_shared"),
            "access::bits" => ("access", either(self.vectorized, "bits_vec4", "bits_scalar")),
            "access::low" => ("access", either(self.shared_vectors, "low_shared", "low_vec4")),
            "access::param" if self.rounded => ("access", "param_half"),
            "access::param" if self.split => ("access", "param_split"),
            "access::stepped" => ("access", either(self.rounded, "stepped_half", "stepped_f32")),
            "access::average" => ("access", either(self.half_averages, "average_half", "average_f32")),
            "access::swap" if self.half_averages => ("access", "swap_halves"),
            "access::swap" => ("access", either(self.rounded, "swap_rounded", "swap_whole")),
            "access::single" if self.split => ("access", "single_split"),
            "access::single" => ("access", either(self.rounded, "single_half", "single_f32")),
            "access::param" => {
                ("access", either(self.vectorized && !self.shared_vectors, "param_vec4", "param_scalar"))
            }
            "access::offset" => ("access", either(self.shared_vectors, "offset_scalar", "offset_vec4")),
            "access::grad" if self.format == Precision::F32 => {
                ("access", either(self.vectorized, "grad_vec4", "grad_scalar"))
            }
            "access::grad" => ("access", either(self.vectorized, "grad_half_vec4", "grad_half_scalar")),
            "access::half" => {
                ("access", either(self.rounded || self.split || self.format == Precision::Bf16, "bf16", "f16"))
            }
            "access::notes" => ("access", either(self.shared_notes, "notes_shared", "notes_own")),
            "matrix::gram_tiles_64" | "matrix::gram_tiles_128" => ("matrix", "gram_tiles"),
            "matrix::advance_tiles_64" | "matrix::advance_tiles_128" => ("matrix", "advance_tiles"),
            "matrix::staged" => ("matrix", either(self.matmul == Matmul::TilesF16, "staged_f16", "staged_f32")),
            other => other.split_once("::")?,
        };
        let name = format!("{folder}/{file}");
        let text = text(&name)?;
        let text = match self.quarters || self.wide {
            // Each lane has one vector of a quarter, so its loop becomes a branch.
            true => GPU.iter().fold(text.to_owned(), |text, (of_cpu, of_gpu)| text.replace(of_cpu, of_gpu)).into(),
            false if self.matmul.block() == 128 => text.replace(LARGE.0, LARGE.1).into(),
            false => text.into(),
        };
        Some(File { text, name: name + ".wgsl" })
    }

    /// The module of the state: its bindings, a member for each state, and how a vector of four is loaded and stored.
    fn state_module(&self) -> String {
        let bindings = match self.orthogonal {
            true => {
                vec![StateBinding { name: "orthogonal".to_owned(), per: Per::Coordinate, states: vec!["orthogonal"] }]
            }
            false => self.base.state_bindings(self.split).to_vec(),
        };
        let mut text = "import package::tables::{Chunk, EACH, tensors};\n\n".to_owned();
        let (mut members, mut loads, mut stores) = (String::new(), Vec::new(), String::new());
        let in_bytes = !self.state.is_f32() && !self.orthogonal;
        let (mut rounds, mut packed) = (Vec::new(), 0);
        for (binding, StateBinding { name, per, states }) in (2..).zip(&bindings) {
            // States of inputs and outputs are moved on by kernels of their own.
            if [Per::Input, Per::Output].contains(per) {
                continue;
            }
            let is_of_rows = per.is_line();
            let row = if *per == Per::Row { "row" } else { "column" };
            let element = match is_of_rows {
                true => "f32",
                false if in_bytes => "u32",
                false => "vec4<f32>",
            };
            // Offsets from the average move on with the parameters, in the sink: `shaders/access/offset_vec4.wgsl`.
            if self.base.row().averages && name == Z_OFFSET {
                continue;
            }
            text += &format!("@group(1) @binding({binding}) var<storage, read_write> {name}: array<{element}>;\n");
            let places = if states.len() > 1 { ["first", "second"] } else { ["vector", ""] };
            for (state, place) in states.iter().zip(places) {
                members += &format!("    {state}: vec4<f32>,\n");
                let squares = self.base.row().states.iter().any(|row| row.name == *state && row.squares);
                let kind = if squares { "squares" } else { "signed" };
                loads.push(match is_of_rows {
                    true => format!("vec4<f32>({name}[{row}.x], {name}[{row}.y], {name}[{row}.z], {name}[{row}.w])"),
                    false if in_bytes => format!("unpack_{kind}({name}[{place}])"),
                    false => format!("{name}[{place}]"),
                });
                let bytes = in_bytes && !is_of_rows;
                rounds.push(match bytes {
                    true => format!("unpack_{kind}(pack_{kind}(select(vec4<f32>(), state.{state}, inside), random_bits(noise, {packed}u)))"),
                    false => format!("state.{state}"),
                });
                packed += u32::from(bytes);
                if bytes {
                    // The state is rounded already.
                    stores += &format!("    {name}[{place}] = pack_{kind}(state.{state}, vec4<u32>());\n");
                } else if !is_of_rows && !self.orthogonal {
                    stores += &format!("    {name}[{place}] = state.{state};\n");
                }
            }
        }
        if self.orthogonal && self.base.row().lines.is_some() {
            text += "import package::lib::lines::lines_of;\n\n";
            members += "    factor: vec4<f32>,\n";
            loads.push("lines_of(chunk, vector - chunk.offset / 4u, 0u)".to_owned());
        }
        if members.is_empty() {
            (members, loads) = ("    unused: u32,\n".to_owned(), vec!["0u".to_owned()]);
        }
        // The states of a pair follow each other, tensor after tensor.
        let pairs = match bindings.iter().any(|binding| binding.states.len() > 1) {
            true => {
                "    let first = vector + (chunk.offset - chunk.index) / 4u;\n    \
                 let second = first + (tensors.each[chunk.tensor].numel + 127u) / 128u * 32u;\n"
            }
            false => "",
        };
        let rows = match bindings.iter().any(|binding| [Per::Row, Per::Column].contains(&binding.per)) {
            true => {
                "    let index = vec4<u32>(4u * vector - chunk.offset + chunk.index) + EACH;\n    \
                 let row = vec4<u32>(chunk.lines) + index / vec4<u32>(chunk.row_len);\n    \
                 let column = vec4<u32>(chunk.lines) + index % vec4<u32>(chunk.row_len);\n"
            }
            false => "",
        };
        let mut rounded = String::new();
        if packed > 0 {
            text = text.replace("tables::{Chunk, EACH, tensors}", "tables::{Chunk, EACH, Scalars, tensors}");
            text += "import package::lib::bytes::{noise_at, pack_signed, pack_squares, random_bits, unpack_signed, unpack_squares};\n";
            rounded = format!(
                "\nfn rounded_state(state: State, chunk: Chunk, vector: u32, s: Scalars) -> State {{\n    \
                 let noise = noise_at(chunk, vector, s.t);\n    \
                 let inside = vec4<u32>(4u * vector - chunk.offset) + EACH < vec4<u32>(chunk.len);\n    \
                 return State({});\n}}\n",
                rounds.join(", ")
            );
        }
        let loads = loads.join(", ");
        text + &rounded
            + &format!(
                "\nstruct State {{\n{members}}}\n\n\
             struct Update {{\n    direction: vec4<f32>,\n    state: State,\n}}\n\n\
             fn load_state(chunk: Chunk, vector: u32) -> State {{\n{pairs}{rows}    return State({loads});\n}}\n\n\
             fn store_state(chunk: Chunk, vector: u32, state: State) {{\n{pairs}{stores}}}\n"
            )
    }
}

fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(path, _)| *path == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::kernel::linker::items;
    use crate::kernel::linker::tests::unstated;

    /// Modules whose names a file of the catalog may import: files, and slots by what fills them.
    fn known() -> BTreeMap<String, BTreeSet<String>> {
        let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut add = |module: &str, text: &str| {
            for item in items(text).into_iter().filter(|item| item.lanes.is_none()) {
                known.entry(item.name).or_default().insert(module.to_owned());
            }
        };
        FILES.iter().for_each(|(name, text)| add(name, text));
        BaseKind::all().for_each(|base| add("state", &Config { base, ..Config::default() }.state_module()));
        add("tables", tables::WGSL);
        known
    }

    #[test]
    fn every_file_states_its_imports() {
        let known = known();
        let of = |(name, text): &(&'static str, &'static str)| {
            // The tables' structs are a part of their file.
            let structs = if *name == "lib/tables" { tables::WGSL } else { "" };
            unstated(&File { name: format!("{name}.wgsl"), text: format!("{text}{structs}").into() }, &known)
        };
        let wrong: Vec<_> = FILES
            .iter()
            .flat_map(of)
            .map(|wrong| format!("shaders/{}:{}: {}", wrong.file, wrong.line, wrong.message))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_constant_is_declared_by_a_file_and_set_by_a_plan_or_a_base() {
        let of_bases = BaseKind::all().flat_map(|base| base.row().constants);
        let set: BTreeSet<_> = of_bases.chain(&CONSTANTS).map(|name| (*name).to_owned()).collect();
        let all = FILES.iter().flat_map(|(_, text)| items(text)).filter(|item| item.keyword == "override");
        assert_eq!(all.map(|item| item.name).collect::<BTreeSet<_>>(), set);
    }

    /// Names of a text get a prefix. Words of WGSL in a text keep their meaning.
    #[test]
    fn no_name_is_that_of_a_custom_text_or_a_word_of_it() {
        let own = FILES.iter().flat_map(|(_, text)| items(text)).chain(items(tables::WGSL)).map(|item| item.name);
        // `package::state` defines these for every base.
        let given = ["State", "Update"];
        let is_wrong = |name: &String| {
            let has_prefix = ["base_", "policy_", "state_"].iter().any(|prefix| name.starts_with(prefix));
            has_prefix || crate::recipe::custom::is_known(name) && !given.contains(&name.as_str())
        };
        assert_eq!(own.filter(is_wrong).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn every_file_is_in_the_catalog() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
        for folder in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
        {
            for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = file.strip_prefix(&root).unwrap().with_extension("");
                assert!(text(&name.to_string_lossy().replace('\\', "/")).is_some(), "{}", file.display());
            }
        }
    }
}
