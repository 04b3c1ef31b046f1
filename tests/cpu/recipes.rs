//! Recipes from names and JSON, and what is refused.

use proptest::prelude::*;
use wgpu_optim::base::{AdaGo, AdamW, Base, EpsPlacement, Lion, Muon, NsCoefficients};
use wgpu_optim::policy::{Cautious, CautiousMgup, Grams, Mgup, Normalizer, Policy, Selection};
use wgpu_optim::{Error, GradScaler, ParamGroups, Recipe};

#[test]
fn every_preset_parses_and_names_itself() {
    for name in Recipe::presets() {
        let recipe: Recipe = name.parse().unwrap();
        assert_eq!(recipe.name(), name);
        assert_eq!(name.replace('-', "_").parse::<Recipe>().unwrap(), recipe, "types have underscores");
        assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    }
    let presets = Recipe::presets();
    for name in ["adamw", "adamw-torch", "mgup-adamw", "cautious-mgup-lion", "mgup-adamw-approximate"] {
        assert!(presets.iter().any(|p| p == name), "{name}");
    }
}

#[test]
fn the_defaults_are_those_of_the_papers() {
    assert_eq!("adamw".parse::<Recipe>().unwrap().base, Base::Adamw(AdamW::default()));
    let json = r#"{"base": {"type": "adamw", "lr": 0.002}, "policy": {"type": "mgup"}}"#;
    let recipe = Recipe::from_json(json).unwrap();
    assert_eq!(recipe, Recipe::adamw(0.002).mgup());
    assert_eq!(recipe.policy.factors(), (2.0, 0.5));
    let Base::Adamw(base) = recipe.base else { panic!() };
    assert_eq!((base.betas, base.eps, base.weight_decay), ([0.9, 0.999], 1e-8, 0.0));
    let Base::Lion(lion) = "lion".parse::<Recipe>().unwrap().base else { panic!() };
    assert_eq!((lion.lr, lion.betas), (1e-4, [0.9, 0.99]));
    // The floor of the f64 product: 0.29 × 100 is 28.999…
    assert_eq!(Mgup::default().ratio(0.29).k(100), 28);
    assert_eq!(Mgup::default().k(1), 0);
}

#[test]
fn unknown_names_list_the_known() {
    for name in ["", "adamw2", "mgup", "approximate", "mgup-", "adamw-approximate", "grams-approximate", "MGUP-ADAMW"] {
        let error = name.parse::<Recipe>().unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")) && error.contains("mgup-adamw"), "{error}");
    }
}

#[test]
fn bad_json_names_the_field_the_value_and_what_is_allowed() {
    let refused = [
        (r#"{"base": {"type": "adamw", "lr": -0.1}}"#, "`base.lr` is -0.1, but must be finite in f32 and not negative"),
        (r#"{"base": {"type": "adamw", "betas": [0.9, 1.0]}}"#, "`base.betas[1]` is 1, but must be in [0, 1)"),
        (r#"{"base": {"type": "adamw", "betas": [-0.1, 0.9]}}"#, "`base.betas[0]` is -0.1"),
        (r#"{"base": {"type": "adamw", "betas": [0.9]}}"#, "base.betas"),
        (r#"{"base": {"type": "adamw", "eps": -1e-8}}"#, "`base.eps`"),
        (r#"{"base": {"type": "lion", "weight_decay": -1}}"#, "`base.weight_decay` is -1"),
        (r#"{"base": {"type": "lion", "eps": 1e-8}}"#, "unknown field `eps`, expected one of `lr`"),
        (r#"{"base": {"type": "adamw", "lr": "fast"}}"#, "base.lr: invalid type: string"),
        (
            r#"{"base": {"type": "adamw", "decay_rate": "x"}}"#,
            "unknown variant `x`, expected `bias_corrected` or `base`",
        ),
        (r#"{"base": {"type": "lbfgs"}}"#, "`base.type` is `lbfgs`, but must be one of adamw, lion"),
        (r#"{"base": {"lr": 1}}"#, "base: lacks its `type`"),
        (r#"{"base": {"type": 3}}"#, "base.type: must be a string"),
        (r#"{"base": 3}"#, "base: must be an object"),
        (r#"{}"#, "missing field `base`"),
        (r#"{"base": {"type": "adamw"}, "polcy": {}}"#, "unknown field `polcy`"),
        (
            r#"{"base": {"type": "adamw"}, "policy": {"type": "mgup", "ratio": 1}}"#,
            "`policy.ratio` is 1, but must be in (0, 1)",
        ),
        (r#"{"base": {"type": "adamw"}, "policy": {"type": "mgup", "ratio": 0}}"#, "`policy.ratio` is 0"),
        (r#"{"base": {"type": "adamw"}, "policy": {"type": "mgup", "alpha": -2}}"#, "`policy.alpha` is -2"),
        (r#"{"base": {"type": "adamw"}, "policy": {"type": "cautious_mgup", "gamma": -2}}"#, "`policy.gamma` is -2"),
        (
            r#"{"base": {"type": "adamw"}, "policy": {"type": "mgup", "selection": "fast"}}"#,
            "expected one of `exact`, `approximate`, `random`",
        ),
        (r#"{"base": {"type": "adamw"}, "policy": {"type": "plain", "ratio": 0.5}}"#, "unknown field `ratio`"),
        (r#"{"base": {"type": "adamw"}, "policy": {"type": "max"}}"#, "`policy.type` is `max`"),
        (r#"{"base": {"type": "adamw"}"#, "json: EOF"),
        ("", "json: EOF"),
        (r#"{"base": {"type": "adamw", "lr": 1e300}}"#, "`base.lr` is 1e300, but"),
        (r#"{"base": {"type": "adamw"}, "policy": {"type": "mgup", "ratio": 1e-100}}"#, "`policy.alpha` is 1e100, but"),
        (r#"{"base": {"type": "adamw"}, "policy": null}"#, "policy: must be an object"),
    ];
    for (json, expected) in refused {
        let error = Recipe::from_json(json).expect_err(json).to_string();
        assert!(error.starts_with("recipe: ") && error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn presets_follow_their_sources() {
    let of = |name: &str| name.parse::<Recipe>().unwrap();
    let Base::Adamw(grams) = of("grams").base else { panic!() };
    let after = AdamW::default().eps_placement(EpsPlacement::AfterBiasCorrection);
    assert_eq!((grams, of("grams-adamw").base), (after, Base::Adamw(AdamW::default())));
    let normalizer = |name: &str| match of(name).policy {
        Policy::Cautious(cautious) => cautious.normalizer,
        _ => panic!("{name}"),
    };
    assert_eq!(normalizer("cautious-lion"), Normalizer::Count);
    assert_eq!(normalizer("cautious-adamw"), Normalizer::Mean);
}

#[test]
fn the_table_of_presets_says_what_the_presets_do() {
    let text = include_str!("../../docs/presets.md");
    let blocks: Vec<_> = text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 1);
    let authors = Recipe::from_json(blocks[0]).unwrap();
    assert_eq!((authors.name().as_str(), authors.policy.factors()), ("mgup-muon", (2.0, 0.1)));
    // Backquoted words with a hyphen are presets.
    let quoted = text.split('`').skip(1).step_by(2).filter(|word| word.contains('-') && !word.contains('"'));
    let mut presets: Vec<_> = quoted.collect();
    presets.retain(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
    assert!(presets.len() > 5, "{presets:?}");
    for preset in presets {
        assert!(preset.parse::<Recipe>().is_ok(), "{preset}");
    }
}

#[test]
fn keys_are_unique_and_a_name_is_a_recipe() {
    for (json, key) in [
        (r#"{"base": {"type": "adamw", "lr": 1, "lr": 2}}"#, "`lr`"),
        (r#"{"base": {"type": "adamw"}, "base": {"type": "lion"}}"#, "`base`"),
        (r#"{"base": {"type": "adamw", "type": "lion"}}"#, "`type`"),
        (r#"{"base": {"type": "muon", "fallback": {"type": "adamw", "eps": 1, "eps": 1}}}"#, "`eps`"),
    ] {
        let message = Recipe::from_json(json).expect_err(json).to_string();
        assert!(message.contains(&format!("the key {key} is there twice")), "{json}: {message}");
        let groups = serde_json::from_str::<ParamGroups>(&format!(r#"{{"recipes": [{json}]}}"#));
        let message = groups.expect_err(json).to_string();
        assert!(message.contains(&format!("the key {key} is there twice")), "{json}: {message}");
    }
    let twice = r#"{"recipes": [], "telemetry": 3, "telemetry": 4}"#;
    assert!(serde_json::from_str::<ParamGroups>(twice).unwrap_err().to_string().contains("`telemetry`"));
    // As some editors write it.
    let marked = "\u{feff}{\"base\": {\"type\": \"lion\"}}";
    assert_eq!(Recipe::from_json(marked).unwrap(), "lion".parse().unwrap());
    assert_eq!(Recipe::from_json("\"mgup-lion\"").unwrap(), "mgup-lion".parse().unwrap());
    assert!(matches!(Recipe::from_json("\"mgup\""), Err(Error::UnknownPreset { .. })));
}

#[test]
fn settings_that_nobody_knows_are_refused_by_name() {
    let groups = ParamGroups::from(Recipe::lion(1e-3)).with_max_grad_norm(1.0);
    let json = serde_json::to_string(&groups).unwrap();
    assert_eq!(serde_json::from_str::<ParamGroups>(&json).unwrap(), groups);
    let json = json.replace("max_grad_norm", "max_gradnorm");
    let message = serde_json::from_str::<ParamGroups>(&json).unwrap_err().to_string();
    assert!(message.contains("unknown field `max_gradnorm`"), "{message}");
}

#[test]
fn what_f32_does_not_hold_is_refused() {
    let adamw = |change: fn(&mut AdamW)| {
        let mut base = AdamW::default();
        change(&mut base);
        Recipe::from(Base::Adamw(base))
    };
    let field = |recipe: Recipe| match recipe.validate() {
        Err(Error::Recipe { field, .. }) => field,
        other => panic!("{recipe:?}: {other:?}"),
    };
    let after = EpsPlacement::AfterBiasCorrection;
    assert_eq!(field(adamw(|b| b.eps = 1e-46)), "base.eps");
    assert_eq!(field(adamw(|b| b.eps = 1.1e-38)), "base.eps");
    // In the first step √c2 is 0.03.
    let small = AdamW::default().eps(1.2e-38);
    Recipe::from(small).validate().unwrap();
    assert_eq!(field(small.eps_placement(after).into()), "base.eps");
    adamw(|b| b.eps = 0.0).validate().unwrap();
    let muon = Muon::default().fallback(AdamW::default().eps(1e-46));
    assert_eq!(field(muon.into()), "base.fallback.eps");
    // In the first step √c2 / c1 is 0.3, and with these betas 31.
    adamw(|b| b.lr = 3e38).validate().unwrap();
    let steep = adamw(|b| (b.lr, b.betas) = (3e38, [0.99, 0.9]));
    assert_eq!(field(steep), "base.lr, times the bias corrections");
    assert_eq!(field(adamw(|b| (b.lr, b.weight_decay) = (1e20, 1e20))), "base.lr times base.weight_decay");
    assert_eq!(field(Recipe::lion(1e30).weight_decay(1e10)), "base.lr times base.weight_decay");
    for init in [1e-39, 1e38] {
        let scaler = GradScaler::default().init(init);
        let groups = ParamGroups::from(Recipe::lion(1e-3)).with_grad_scaler(scaler);
        assert!(groups.validate().unwrap_err().to_string().contains("grad_scaler.init"));
    }
}

#[test]
fn the_smallest_step_of_adago_follows_the_learning_rate() {
    let of = |recipe: Recipe| match recipe.base {
        Base::Adago(AdaGo { lr, min_step, fallback, .. }) => (lr, min_step, fallback.lr),
        _ => panic!(),
    };
    let recipe = Recipe::adago(0.05);
    assert_eq!(of(recipe.with_lr(0.025)), (0.025, 2.5e-4, 5e-4));
    assert_eq!(of(recipe.with_lr(0.0)), (0.0, 0.0, 0.0));
    assert_eq!(of(recipe.with_lr(0.05)), of(recipe));
}

#[test]
fn newton_schulz_takes_one_triple_or_a_list_or_a_name() {
    let of = |coefficients: &str| {
        let json = format!(r#"{{"base": {{"type": "muon", "ns_coefficients": {coefficients}}}}}"#);
        Recipe::from_json(&json).map(|recipe| match recipe.base {
            Base::Muon(muon) => muon.ns_coefficients,
            _ => panic!(),
        })
    };
    assert_eq!(of("[2, -1.5, 0.5]").unwrap(), [2.0, -1.5, 0.5].into());
    assert_eq!(of("\"quintic\"").unwrap(), NsCoefficients::QUINTIC);
    assert_eq!(of("\"polar_express\"").unwrap(), NsCoefficients::POLAR_EXPRESS);
    let list = of("[[3, -3.2, 1.2], [2, -1.5, 0.5]]").unwrap();
    assert_eq!((list.of(0), list.of(1), list.of(90)), ([3.0, -3.2, 1.2], [2.0, -1.5, 0.5], [2.0, -1.5, 0.5]));
    assert_eq!(of("\"polar_express_4\"").unwrap(), NsCoefficients::POLAR_EXPRESS_4);
    let named = [NsCoefficients::POLAR_EXPRESS, NsCoefficients::POLAR_EXPRESS_4, NsCoefficients::QUINTIC];
    for coefficients in named.into_iter().chain([list]) {
        let recipe = Recipe::from(Muon::default().ns_coefficients(coefficients));
        assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    }
    let seven = format!("[{}]", ["[2, -1.5, 0.5]"; 7].join(", "));
    for wrong in ["[]", "[1, 2]", "\"cubic\"", &seven] {
        let message = of(wrong).unwrap_err().to_string();
        assert!(message.contains("ns_coefficients") && message.contains("a list of 1 to 6"), "{message}");
    }
    let message = of("[[1, 1, 1], [1, 1e300, 1]]").unwrap_err().to_string();
    assert!(message.contains("`base.ns_coefficients[1][1]` is 1e300"), "{message}");
}

/// docs/optimizers.md has these numbers.
#[test]
fn coefficients_bring_an_interval_of_singular_values_near_one() {
    for (coefficients, steps, least, distance) in [
        (NsCoefficients::QUINTIC, 5, 1.51e-3, 0.32),
        (NsCoefficients::POLAR_EXPRESS, 5, 1.1e-3, 0.13),
        (NsCoefficients::POLAR_EXPRESS_4, 4, 2.2e-3, 0.31),
    ] {
        let after = |value: f64| {
            let iterate = |x: f64, [a, b, c]: [f64; 3]| x * (a + x * x * (b + c * x * x));
            (0..steps).map(|i| coefficients.of(i)).fold(value, iterate)
        };
        let grid = (0..=100_000).map(|i| least * (1.0f64 / least).powf(f64::from(i) / 1e5));
        let most = grid.map(|value| (after(value) - 1.0).abs()).fold(0.0, f64::max);
        assert!(most < distance && most > distance - 0.01, "{coefficients:?}: {most}");
        assert!(after(least / 2.0) < 1.0 - distance, "{coefficients:?}");
    }
}

/// A weight decay that is a part of the gradient, and what does not go with it.
#[test]
fn a_coupled_weight_decay_is_refused_where_a_direction_could_not_be_found_again() {
    for (base, is_refused) in [
        (r#""type": "rmsprop""#, true),
        (r#""type": "rmsprop", "momentum": 0.9"#, false),
        (r#""type": "adagrad""#, true),
        (r#""type": "nadam""#, true),
        (r#""type": "radam""#, false),
        (r#""type": "adam""#, false),
        (r#""type": "sgd""#, false),
        (r#""type": "sgd", "momentum": 0.9"#, false),
        (r#""type": "sgd", "momentum": 0.9, "nesterov": true"#, true),
    ] {
        let of = |more: &str, policy: &str| {
            Recipe::from_json(&format!(r#"{{"base": {{{base}, "weight_decay": 0.1{more}}}, "policy": {policy}}}"#))
        };
        let exact = r#"{"type": "mgup"}"#;
        assert_eq!(of("", exact).is_err(), is_refused, "{base}");
        if is_refused {
            let message = of("", exact).unwrap_err().to_string();
            assert!(
                message.contains("`base.weight_decay` is 0.1") && message.contains("decoupled_weight_decay"),
                "{message}"
            );
            of(r#", "decoupled_weight_decay": true"#, exact).unwrap();
        }
        of("", r#"{"type": "mgup", "selection": "approximate"}"#).unwrap();
        of("", r#"{"type": "cautious"}"#).unwrap();
        let cautious = of(r#", "cautious_weight_decay": true"#, r#"{"type": "plain"}"#);
        // SGD without momentum always decouples its weight decay.
        assert_eq!(cautious.is_ok(), base == r#""type": "sgd""#, "{base}");
    }
    let refused = [
        (r#""type": "sgd", "nesterov": true"#, "`base.nesterov` is true"),
        (r#""type": "sgd", "momentum": 0.9, "dampening": 0.1, "nesterov": true"#, "a dampening of 0"),
        (r#""type": "adamw", "amsgrad": true, "second_moment": "row""#, "`base.amsgrad` is true"),
        (r#""type": "adamw", "power": 0.25, "second_moment": "row""#, "`base.power` is 0.25"),
        (r#""type": "adamw", "power": 0.6"#, "`base.power` is 0.6"),
        (r#""type": "madam", "beta2_min": 0.9995"#, "at most betas[1], here 0.999"),
        (r#""type": "adamomentum", "eps": 0"#, "`base.eps` is 0"),
        (r#""type": "adan", "betas": [0.9, 0.9, 1]"#, "`base.betas[2]` is 1"),
    ];
    for (base, words) in refused {
        let message = Recipe::from_json(&format!(r#"{{"base": {{{base}}}}}"#)).unwrap_err().to_string();
        assert!(message.contains(words), "{base}: {message}");
    }
}

#[test]
fn recipes_from_code_are_checked_too() {
    for lr in [f64::NAN, f64::INFINITY, -1.0] {
        assert!(matches!(Recipe::adamw(lr).validate(), Err(Error::Recipe { field, .. }) if field == "base.lr"));
    }
    assert!(Recipe::adamw(0.0).validate().is_ok());
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let rate = || 0.0..10.0f64;
    let unit = || 0.0..1.0f64;
    let open = || 1e-6..0.999_999f64;
    let adamw = (rate(), unit(), unit(), rate(), rate()).prop_map(|(lr, b1, b2, eps, weight_decay)| {
        Base::from(AdamW::new(lr).betas([b1, b2]).eps(eps).weight_decay(weight_decay))
    });
    let lion = (rate(), unit(), unit(), rate())
        .prop_map(|(lr, b1, b2, weight_decay)| Base::from(Lion::new(lr).betas([b1, b2]).weight_decay(weight_decay)));
    let factors = || (open(), proptest::option::of(rate()), proptest::option::of(rate()));
    let policy = prop_oneof![
        Just(Grams::default().into()),
        Just(Cautious::default().normalizer(Normalizer::Count).into()),
        factors().prop_map(|(ratio, alpha, gamma)| {
            let mut mgup = Mgup::default().ratio(ratio).selection(Selection::Approximate);
            (mgup.alpha, mgup.gamma) = (alpha, gamma);
            Policy::from(mgup)
        }),
        factors().prop_map(|(ratio, alpha, gamma)| {
            let mut mgup = CautiousMgup::default().ratio(ratio);
            (mgup.alpha, mgup.gamma) = (alpha, gamma);
            Policy::from(mgup)
        }),
    ];
    (prop_oneof![adamw, lion], policy).prop_map(|(base, policy)| Recipe::new(base, policy))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_goes_round(recipe in recipes()) {
        prop_assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    }

    #[test]
    fn any_text_is_a_recipe_or_an_error(text in ".*") {
        let _ = Recipe::from_json(&text);
        let _ = text.parse::<Recipe>();
    }
}
