//! A recipe on the command line.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use wgpu_optim::base::CustomBase;
use wgpu_optim::policy::CustomPolicy;
use wgpu_optim::{Error, Recipe};

/// Reads a JSON recipe file or, if the name ends in `.wgsl`, the WGSL of a custom base or policy. A base gets plain updates. A policy gets
/// AdamW with a learning rate of 1e-3 as its base.
pub fn file(path: &Path) -> Result<Recipe, Error> {
    if path.extension().is_none_or(|ending| ending != "wgsl") {
        return Recipe::from_file(path);
    }
    let text = fs::read_to_string(path).map_err(|e| Error::RecipeSyntax {
        field: "file".to_owned(),
        message: format!("cannot read {}: {e}", path.display()),
    })?;
    let first = text.lines().find_map(|line| line.trim().strip_prefix("//@"));
    let recipe = match first.is_some_and(|first| first.trim().starts_with("policy")) {
        true => Recipe::adamw(1e-3).with_policy(CustomPolicy::new(&text)?),
        false => CustomBase::new(&text)?.into(),
    };
    recipe.validate()?;
    Ok(recipe)
}

/// Reads a JSON recipe file or a WGSL file. If no file has this path, finds the preset of this name. Returns the recipe and its name, which
/// is the name of the preset, or of the file without its extension.
pub fn named(text: &OsStr) -> Result<(String, Recipe), String> {
    let path = Path::new(text);
    let why = match fs::metadata(path) {
        Ok(found) if found.is_dir() => "it is a directory".to_owned(),
        Ok(_) => {
            let recipe = file(path).map_err(|e| e.to_string())?;
            let name = path.file_stem().unwrap_or(text).to_string_lossy().into_owned();
            return Ok((name, recipe));
        }
        Err(error) => error.to_string(),
    };
    let name = text.to_string_lossy().into_owned();
    match name.parse() {
        Ok(recipe) => Ok((name, recipe)),
        Err(Error::UnknownPreset { known, .. }) => {
            let why = if name.contains(['.', '/', '\\']) || path.is_dir() { format!(": {why}") } else { String::new() };
            let similar = Recipe::presets().into_iter().max_by(|a, b| {
                let [a, b] = [a, b].map(|preset| strsim::jaro_winkler(preset, &name));
                a.total_cmp(&b)
            });
            let similar = similar.filter(|preset| strsim::jaro_winkler(preset, &name) > 0.8);
            let meant = similar.map_or(String::new(), |preset| format!(" did you mean `{preset}`?"));
            Err(format!(
                "neither a preset nor a JSON recipe file{why};{meant} give the path of a file, or one of the presets {known}"
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_wins_over_a_preset_and_a_directory_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lion");
        fs::create_dir(&path).unwrap();
        assert!(named(path.as_os_str()).unwrap_err().contains("it is a directory"));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, r#"{"base": {"type": "adamw", "lr": 0.5}}"#).unwrap();
        let (name, recipe) = named(path.as_os_str()).unwrap();
        assert_eq!((name.as_str(), recipe.name().as_str(), recipe.lr()), ("lion", "adamw", 0.5));

        let (name, recipe) = named("mgup-lion".as_ref()).unwrap();
        assert_eq!((name.as_str(), recipe), ("mgup-lion", "mgup-lion".parse().unwrap()));
    }

    #[test]
    fn what_is_neither_is_refused_as_both() {
        let error = named("no/such/recipe.json".as_ref()).unwrap_err();
        for word in
            ["neither a preset nor a JSON recipe file: No such file", "presets adamw, adamw-torch, lion", "mgup-adamw"]
        {
            assert!(cfg!(windows) || error.contains(word), "{word}: {error}");
        }
        let error = named("mgup-adamww".as_ref()).unwrap_err();
        assert!(error.contains("did you mean `mgup-adamw`?") && !error.contains("No such file"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.json");
        fs::write(&path, r#"{"base": {"type": "adamv"}}"#).unwrap();
        assert!(named(path.as_os_str()).unwrap_err().contains("adamv"));
    }
}
