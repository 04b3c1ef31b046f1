//! The TypeScript declarations have every base and policy with every hyper-parameter.
#![cfg(not(target_arch = "wasm32"))]

use wgpu_optim::Recipe;
use wgpu_optim::base::BaseKind;
use wgpu_optim::policy::PolicyKind;

const TYPES: &str = include_str!("../src/types.d.ts");

/// The fields of a base or policy, as the message about an unknown one lists them.
fn fields(json: &str) -> Vec<String> {
    let message = Recipe::from_json(json).unwrap_err().to_string();
    let names: Vec<_> = message.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(names[0], "?", "{message}");
    names[1..].into()
}

/// The fields that a type with this name is declared without; all fields if no type has this name.
fn missing(types: &str, name: &str, fields: Vec<String>) -> Vec<String> {
    let start = types.find(&format!("type: \"{name}\"")).unwrap_or(types.len());
    let declared = types[start..].split('}').next().unwrap();
    let camel_case = |field: &String| {
        let mut words = field.split('_').map(str::to_owned);
        let first = words.next().unwrap();
        first + &words.map(|word| word[..1].to_uppercase() + &word[1..]).collect::<String>()
    };
    let is_missing = |field: &String| !declared.contains(&format!(" {}?: ", camel_case(field)));
    fields.into_iter().filter(is_missing).collect()
}

#[test]
fn every_hyper_parameter_is_declared() {
    let adamw = || fields(r#"{"base": {"type": "adamw", "?": 0}}"#);
    assert!(adamw().len() >= 7);
    assert_eq!(missing(TYPES, "adamv", adamw()), adamw());
    assert_eq!(missing(&TYPES.replace("epsPlacement", "epsplacement"), "adamw", adamw()), ["eps_placement"]);
    for name in BaseKind::all().map(|kind| kind.row().name).filter(|name| !name.contains('(')) {
        let fields = fields(&format!(r#"{{"base": {{"type": "{name}", "?": 0}}}}"#));
        assert!(missing(TYPES, name, fields).is_empty(), "{name}");
    }
    for name in PolicyKind::all().map(|kind| kind.row().name).filter(|name| !name.contains('(')) {
        let json = format!(r#"{{"base": {{"type": "adamw"}}, "policy": {{"type": "{name}", "?": 0}}}}"#);
        let fields = fields(&json);
        assert!(TYPES.contains(&format!("type: \"{name}\"")), "{name}");
        assert!(missing(TYPES, name, fields).is_empty(), "{name}");
    }
}
