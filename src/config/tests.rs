//! What the configuration promises: precedence, places of errors, the two meanings of `[lake]`.

use super::*;

fn faults(text: &str) -> Vec<Fault> {
    match Config::parse(text) {
        Err(Error::Config(faults)) => faults,
        other => panic!("expected faults, got {other:?}"),
    }
}

fn at(fault: &Fault) -> (usize, usize) {
    let place = fault.place.as_ref().unwrap();
    (place.line, place.column)
}

#[test]
fn lake_is_short_for_the_lake_called_lake_and_stands_beside_others() {
    let config = Config::parse(
        "[lake]\nurl = \"data\"\ndiscover = true\n[lake.crm]\nurl = \"s3://crm\"\n\
         [[lake.crm.tables]]\nname = \"people\"\nlocation = \"people.csv\"\n\
         [[lake.tables]]\nname = \"orders\"\nlocation = \"o\"\noptions = { delimiter = \";\" }\n",
    )
    .unwrap();
    let names: Vec<_> = config.lakes.keys().collect();
    assert_eq!(names, ["crm", "lake"]);
    assert!(config.lakes["lake"].discovery.discover);
    assert_eq!(config.lakes["lake"].store.url.0, "data");
    assert_eq!(config.lakes["lake"].tables[0].options["delimiter"], ";");
    assert!(!config.lakes["crm"].discovery.discover);
    assert_eq!(config.lakes["crm"].tables[0].name, "people");
}

#[test]
fn lake_alone_and_lake_lake_are_the_same() {
    let short = Config::parse("[lake]\nurl = \"x\"\n").unwrap();
    let long = Config::parse("[lake.lake]\nurl = \"x\"\n").unwrap();
    assert_eq!(short, long);
    assert_eq!(Config::parse("lake.url = \"x\"\n").unwrap(), short);
}

#[test]
fn an_unknown_key_is_an_error_with_place_and_suggestion() {
    let faults = faults("[lake]\nurl = \"x\"\n  discovr = true\n");
    assert_eq!(faults.len(), 1);
    assert_eq!(at(&faults[0]), (3, 3));
    assert_eq!(faults[0].message, "unknown key discovr in [lake]");
    assert_eq!(faults[0].hint.as_deref(), Some("did you mean discover?"));
}

#[test]
fn a_key_in_the_wrong_table_is_sent_to_the_right_one() {
    let faults = faults("[limits]\nflight = \"127.0.0.1:1\"\n");
    assert_eq!(faults[0].hint.as_deref(), Some("flight belongs in [server]"));
}

#[test]
fn an_unknown_table_is_an_error_with_suggestion() {
    let faults = faults("[sever]\nflight = \"127.0.0.1:1\"\n");
    assert_eq!(at(&faults[0]), (1, 2));
    assert_eq!(faults[0].hint.as_deref(), Some("did you mean [server]?"));
}

#[test]
fn a_wrong_value_points_to_the_value() {
    let faults = faults("[server]\nflight = \"here\"\n[limits]\nmemory = true\n");
    let places: Vec<_> = faults.iter().map(at).collect();
    assert_eq!(places, [(2, 10), (4, 10)]);
    assert!(faults[1].message.contains("expected a size"), "{}", faults[1].message);
    assert!(faults[0].message.contains("127.0.0.1:50051"), "{}", faults[0].message);
}

#[test]
fn a_syntax_error_points_to_its_place() {
    let faults = faults("[lake]\nurl = = 1\n");
    assert_eq!(faults[0].place.as_ref().unwrap().line, 2);
}

#[test]
fn a_secret_cannot_stand_in_the_file() {
    let faults = faults("[keys.email]\nsecret = \"hunter2\"\n");
    let text: String = faults.iter().map(|fault| fault.render("X", false)).collect();
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(faults.len(), 2);
}

#[test]
fn a_lake_needs_a_url_and_a_name_that_is_a_schema() {
    assert_eq!(faults("[lake.crm]\ndiscover = true\n")[0].message, "[lake.crm] has no url");
    assert_eq!(at(&faults("[lake.\"My Lake\"]\nurl = \"x\"\n")[0]), (1, 7));
}

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("attune.toml");
    std::fs::write(
        &file,
        "[warehouse]\nurl = \"w\"\n[server]\nflight = \"127.0.0.1:1\"\n[limits]\nrows_max = 5\n",
    )
    .unwrap();
    let overrides = Overrides {
        config: Some(file),
        warehouse: Some("s3://flag".into()),
        lake: Some("there".into()),
    };
    let environment = Environment::from([
        ("ATTUNE_WAREHOUSE_URL", "s3://environment"),
        ("ATTUNE_SERVER_FLIGHT", "127.0.0.1:2"),
        ("ATTUNE_LAKE_CRM_URL", "s3://crm"),
        ("ATTUNE_LAKE_REGION", "eu-west-3"),
        ("ATTUNE_SERVICE_HOST", "10.0.0.1"),
        ("ATTUNE_PASSWORD", "hunter2"),
    ]);
    let config = Config::load(&overrides, &environment).unwrap();
    assert_eq!(config.warehouse.url.0, "s3://flag");
    assert_eq!(config.server.flight.port(), 2);
    assert_eq!(config.limits.rows_max, Some(5));
    assert_eq!(config.lakes["crm"].store.url.0, "s3://crm");
    assert_eq!(config.lakes["lake"].store.region.as_deref(), Some("eu-west-3"));
    assert_eq!(config.lakes["lake"].store.url.0, "there");
    assert_eq!(config.unknown_variables, ["ATTUNE_SERVICE_HOST"]);
}

#[test]
fn a_variable_that_mirrors_a_flag_stands_in_for_it() {
    let environment = Environment::from([("ATTUNE_LAKE", "here"), ("ATTUNE_WAREHOUSE", "w")]);
    let overrides = Overrides { warehouse: Some("flag".into()), ..Overrides::default() };
    let config = Config::load(&overrides, &environment).unwrap();
    assert_eq!(config.lakes["lake"].store.url.0, "here");
    assert!(config.lakes["lake"].discovery.discover);
    assert_eq!(config.warehouse.url.0, "flag");
    assert!(config.unknown_variables.is_empty());
}

#[test]
fn a_wrong_variable_is_named() {
    let environment = Environment::from([("ATTUNE_LIMITS_MEMORY", "much")]);
    let error = Config::load(&Overrides::default(), &environment).unwrap_err();
    assert!(error.render(false).contains("ATTUNE_LIMITS_MEMORY: expected a size"));
}

#[test]
fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let overrides = Overrides { config: Some("no/such.toml".into()), ..Overrides::default() };
    let error = Config::load(&overrides, &Environment::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read no/such.toml"), "{error}");
}

#[test]
fn the_example_in_the_documentation_can_be_read() {
    let document = document();
    let start = document.find("```toml\n").unwrap() + 8;
    let end = start + document[start..].find("```").unwrap();
    let config = Config::parse(&document[start..end]).unwrap();
    assert_eq!(config.lakes.len(), 2);
}

#[test]
fn the_documentation_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    if std::env::var_os("ATTUNE_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, document()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, document(), "run ATTUNE_UPDATE_DOCS=1 cargo test config");
}

#[test]
fn a_lake_is_read_unless_the_file_says_of_it_that_it_is_rewritten() {
    let access = |config: &Config| config.lakes["lake"].discovery.access.clone();
    let text = "[lake]\nurl = \"data\"\naccess = \"rewrite\"\n";
    let mut config = Config::parse(text).unwrap();
    assert_eq!(access(&config), "rewrite");
    assert_eq!(access(&Config::parse("[lake]\nurl = \"data\"\n").unwrap()), "read");
    // The flag names another place, of which nothing was said.
    let overrides = Overrides { lake: Some("elsewhere".into()), ..Overrides::default() };
    config.apply(&overrides, &Environment::default());
    assert_eq!(access(&config), "read");
    let wrong = faults("[lake]\nurl = \"data\"\naccess = \"write\"\n");
    assert_eq!(wrong[0].message, "[lake.lake] access is \"write\"");
    assert_eq!(wrong[0].hint.as_deref(), Some("write read or rewrite"));
}

#[test]
fn secrets_of_before_have_one_order_and_an_id_each() {
    let faults = faults(
        "[keys.web]\nfile = \"new\"\nprevious_files = [\"a\"]\nprevious_envs = [\"B\"]\n\
         previous_ids = [\"k1\"]\nfirst_generation = 0\n",
    );
    for expected in ["both previous_files", "2 previous secrets and 1 previous_ids", "is 0"] {
        assert!(faults.iter().any(|fault| fault.message.contains(expected)), "{faults:?}");
    }
}
