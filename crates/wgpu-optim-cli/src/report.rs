//! What `wgpu-optim bench` measured, as a table or as JSON.

use serde::Serialize;

/// Every recipe on one set of tensors.
#[derive(Serialize)]
pub struct Report {
    pub adapter: String,
    pub tensors: usize,
    pub params: u64,
    pub copy: Copy,
    pub recipes: Vec<Row>,
}

/// The copy kernel.
#[derive(Serialize)]
pub struct Copy {
    pub ns_per_param: f64,
    pub params_per_workgroup: u64,
}

/// A recipe.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    /// Time of a step in a queue of many, from the first submit to the end of the last.
    pub ns_per_param: f64,
    /// Time of one step on the GPU, between two timestamps. `None` if the adapter has no timestamps in encoders.
    pub gpu_ns_per_param: Option<f64>,
    /// Time that the host needs to record and submit one step.
    pub host_microseconds: f64,
    pub dispatches: u64,
    pub bytes_per_param: f64,
    pub ratio_to_copy: f64,
    /// To the first recipe.
    pub ratio_to_first: f64,
    /// To the same number of parameters in one tensor, where there are several.
    pub ratio_to_one_tensor: Option<f64>,
    /// Billions of operations per second in the products of a matrix base, counted in full, over the whole step.
    pub gflops: Option<f64>,
    /// Share of the parameters that had to be ranked in the last step, of exact `mgup`.
    pub candidates: f64,
    /// Tensors whose bracket missed, and how many could have, over the steps that were looked at.
    pub missed: u64,
    pub looked_at: u64,
}

/// Prints a table.
pub fn print(report: &Report) {
    let several = report.tensors > 1;
    let tensors = if several { format!(" in {} tensors", report.tensors) } else { String::new() };
    println!("{}, {} parameters{tensors}", report.adapter, report.params);
    let first = &report.recipes[0].name;
    let width = first.chars().count().max(5) + 2;
    print!(
        "{:<26} {:>9} {:>7} {:>8} {:>10} {:>11} {:>8} {:>width$}",
        "",
        "ns/param",
        "gpu",
        "host µs",
        "dispatches",
        "bytes/param",
        "× copy",
        format!("× {first}")
    );
    println!("{}  candidates    missed", if several { format!(" {:>8}", "× one") } else { String::new() });
    println!("{:<26} {:>9.3} {:>27} {:>11.2} {:>8.2}", "copy", report.copy.ns_per_param, 1, 8.0, 1.0);
    for row in &report.recipes {
        print!(
            "{:<26} {:>9.3} {:>7} {:>8.0} {:>10} {:>11.2} {:>8.2} {:>width$.2}",
            row.name,
            row.ns_per_param,
            row.gpu_ns_per_param.map_or("–".to_owned(), |time| format!("{time:.3}")),
            row.host_microseconds,
            row.dispatches,
            row.bytes_per_param,
            row.ratio_to_copy,
            row.ratio_to_first
        );
        if let Some(ratio) = row.ratio_to_one_tensor {
            print!(" {ratio:>8.2}");
        }
        if row.candidates > 0.0 {
            print!("{:>11.2}%{:>10}", 100.0 * row.candidates, format!("{}/{}", row.missed, row.looked_at));
        }
        println!();
    }
    for row in &report.recipes {
        if let Some(gflops) = row.gflops {
            println!("{}: {gflops:.1} GFLOP/s in the products of Newton–Schulz, over the whole step", row.name);
        }
    }
}
