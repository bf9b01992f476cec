//! What grants, roles and ownership allow.

use catalog::Kind;

use super::*;

fn rights(name: &str, roles: &[&str], grants: Vec<Grant>) -> Rights {
    let roles: BTreeSet<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    let mut by_object: BTreeMap<Securable, Vec<Grant>> = BTreeMap::new();
    for grant in grants {
        by_object.entry(grant.on.clone()).or_default().push(grant);
    }
    Rights {
        name: name.into(),
        held: roles.clone(),
        active: roles,
        shared: ["main", "lake"].map(String::from).into(),
        grants: by_object,
        ..Rights::default()
    }
}

fn grant(privilege: Privilege, on: Securable, columns: Option<&[&str]>) -> Grant {
    let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    Grant { privilege, on, columns, by: "root".into(), at_ms: 0 }
}

fn named(schema: &str) -> ObjectName {
    ObjectName::new(schema, "t")
}

fn object(owner: Option<&str>, external: bool) -> Object {
    let (pii, identifiers_of) = (None, None);
    Object { kind: Kind::Table, owner: owner.map(str::to_owned), external, pii, identifiers_of }
}

#[test]
fn nothing_is_there_but_what_was_granted() {
    let none = rights("ann", &["analyst"], vec![]);
    assert!(!none.access(&named("main"), Some(&object(Some("root"), false))).is_any());
    assert!(!none.may_use(&named("main"), Some("root")));
    assert_eq!(
        none.schemas(),
        ["ann", "information_schema", "main", "system"].map(String::from).into()
    );
    let table = || Securable::Table(named("main"));
    let some = rights(
        "ann",
        &[],
        vec![
            grant(Privilege::Select, table(), Some(&["a"])),
            grant(Privilege::Select, table(), Some(&["b"])),
            grant(Privilege::Insert, Securable::Tables("main".into()), None),
        ],
    );
    let access = some.access(&named("main"), None);
    assert_eq!(access.select, Columns::Some(["a", "b"].map(String::from).into()));
    assert!(access.insert && !access.update && !access.allows(Privilege::Select));
    assert!(!some.access(&ObjectName::new("lake", "t"), None).is_any());
    let whole = grant(Privilege::Select, Securable::Tables("main".into()), None);
    let all = rights("ann", &[], vec![grant(Privilege::Select, table(), Some(&["a"])), whole]);
    assert_eq!(all.access(&named("main"), None).select, Columns::All);
}

#[test]
fn a_schema_is_its_users_and_an_object_its_owners() {
    let ann = rights("ann", &["analyst"], vec![]);
    assert!(ann.access(&named("ann"), None).is_all() && ann.may_create(&named("ann")).is_ok());
    assert!(ann.access(&named("main"), Some(&object(Some("ann"), false))).is_all());
    assert!(ann.may_change(&named("main"), Some(&object(Some("ann"), false))).is_ok());
    assert!(ann.may_create(&named("main")).is_err());
    let create = grant(Privilege::Create, Securable::Schema("main".into()), None);
    assert!(rights("ann", &[], vec![create]).may_create(&named("main")).is_ok());
    // A name that is a shared schema's, a system schema's or the embedded owner's owns nothing.
    for name in ["main", "lake", "system"] {
        let odd = rights(name, &["analyst"], vec![]);
        assert!(!odd.owns_schema(name) && odd.may_create(&named(name)).is_err(), "{name}");
    }
    let local = rights("local", &["analyst"], vec![]);
    assert!(!local.access(&named("main"), Some(&object(Some("local"), false))).is_any());
}

#[test]
fn asking_a_model_does_not_give_what_somebody_did() {
    let model = || Securable::Model(named("main"));
    let of = |grants: Vec<Grant>| rights("ann", &[], grants);
    let usage = of(vec![grant(Privilege::Usage, model(), None)]);
    assert!(usage.may_use(&named("main"), Some("root")));
    assert!(usage.may_explain(&named("main"), Some("root")).is_err());
    assert!(usage.may_explain(&named("main"), Some("ann")).is_ok());
    let select = of(vec![grant(Privilege::Select, model(), None)]);
    assert!(select.may_explain(&named("main"), Some("root")).is_ok());
    assert!(!select.may_use(&named("main"), Some("root")));
    let all = of(vec![grant(Privilege::Select, Securable::Models("main".into()), None)]);
    assert!(all.may_explain(&named("main"), Some("root")).is_ok());
    assert!(rights("root", &["admin"], vec![]).may_explain(&named("main"), None).is_ok());
}

#[test]
fn built_in_roles_do_not_imply_each_other() {
    let admin = rights("root", &["admin"], vec![]);
    assert!(admin.access(&named("ann"), None).is_all() && admin.may_manage("x").is_ok());
    assert!(admin.may_manage_keys().is_err() && admin.may_execute("levenshtein"));
    assert!(!admin.may_grant(&Securable::Key("k".into()), None));
    assert!(admin.may_grant(&Securable::Function("levenshtein".into()), None));
    let officer = rights("dpo", &["policy_admin"], vec![]);
    assert!(officer.may_manage_keys().is_ok() && officer.may_manage("x").is_err());
    assert!(officer.may_grant(&Securable::Key("k".into()), None) && officer.sees_key("k"));
    assert!(officer.may_use_key("k", KeyUse::Decrypt).is_err());
    assert!(!officer.access(&named("main"), None).is_any());
    let engineer = rights("eve", &["engineer"], vec![]);
    let (files, rows) = (object(None, true), object(Some("root"), false));
    assert_eq!(engineer.access(&named("lake"), Some(&files)).select, Columns::All);
    assert!(!engineer.access(&named("main"), Some(&rows)).is_any());
    assert!(engineer.may_create_external(&named("main"), None).is_ok());
    assert!(engineer.may_create_external(&named("main"), Some(&rows)).is_err());
    assert!(engineer.may_create_external(&named("ann"), None).is_err());
    assert!(rights("ann", &[], vec![]).may_create_external(&named("ann"), None).is_err());
}

#[test]
fn one_use_of_a_key_gives_no_other() {
    let key = || Securable::Key("k".into());
    let ann = rights("ann", &[], vec![grant(Privilege::Encrypt, key(), None)]);
    assert!(ann.may_use_key("k", KeyUse::Encrypt).is_ok() && ann.sees_key("k"));
    for (name, key_use) in
        [("k", KeyUse::Decrypt), ("k", KeyUse::Pseudonymize), ("other", KeyUse::Encrypt)]
    {
        assert!(ann.may_use_key(name, key_use).is_err(), "{name} {key_use:?}");
    }
    assert!(!ann.sees_key("other") && ann.may_manage_keys().is_err());
    // An administrator knows of keys and uses none.
    let root = rights("root", &["admin"], vec![]);
    assert!(root.sees_key("k") && root.may_use_key("k", KeyUse::Encrypt).is_err());
    let embedded = Rights { embedded: true, ..rights("local", &["policy_admin"], vec![]) };
    assert!(embedded.may_use_key("k", KeyUse::Decrypt).is_ok());
}

#[test]
fn a_function_is_everybodys_until_it_is_taken_from_public() {
    let closed = |roles: &[&str], grants| Rights {
        closed: ["levenshtein".to_owned()].into(),
        ..rights("ann", roles, grants)
    };
    let none = closed(&["analyst"], vec![]);
    assert!(!none.may_execute("levenshtein") && none.may_execute("soundex"));
    assert!(closed(&["admin"], vec![]).may_execute("levenshtein"));
    let on = Securable::Function("levenshtein".into());
    assert!(closed(&[], vec![grant(Privilege::Execute, on, None)]).may_execute("levenshtein"));
}

#[test]
fn only_owners_and_administrators_grant() {
    let ann = rights("ann", &["analyst", "engineer", "policy_admin"], vec![]);
    let mine = object(Some("ann"), false);
    assert!(ann.may_grant(&Securable::Table(named("main")), Some(&mine)));
    assert!(ann.may_grant(&Securable::Tables("ann".into()), None));
    assert!(!ann.may_grant(&Securable::Table(named("main")), Some(&object(None, true))));
    assert!(!ann.may_grant(&Securable::Schema("main".into()), None));
    assert!(rights("root", &["admin"], vec![]).may_grant(&Securable::Schema("main".into()), None));
}

#[test]
fn identifiers_are_read_by_an_express_grant_alone() {
    let restricted = Object { identifiers_of: Some(named("main")), ..object(Some("ann"), true) };
    let name = ObjectName::new("main", "t_pii");
    let on = || Securable::Table(name.clone());
    let schema = grant(Privilege::Select, Securable::Tables("main".into()), None);
    let insert = grant(Privilege::Insert, on(), None);
    let everybody = ["admin", "engineer", "policy_admin", "analyst"];
    let ann = rights("ann", &everybody, vec![schema, insert]);
    assert!(!ann.access(&name, Some(&restricted)).is_any());
    let read = rights("bob", &[], vec![grant(Privilege::Select, on(), None)]);
    let access = read.access(&name, Some(&restricted));
    assert!(access.allows(Privilege::Select) && !access.is_all());
    let some = rights("bob", &[], vec![grant(Privilege::Select, on(), Some(&["email"]))]);
    let select = some.access(&name, Some(&restricted)).select;
    assert_eq!(select, Columns::Some(["email".to_owned()].into()));
    let embedded = Rights { embedded: true, ..rights("local", &[], vec![]) };
    assert!(embedded.access(&name, Some(&restricted)).is_all());
    // Who keeps policies grants it, and neither its owner nor an administrator.
    assert!(rights("dpo", &["policy_admin"], vec![]).may_grant(&on(), Some(&restricted)));
    assert!(!rights("ann", &["admin", "engineer"], vec![]).may_grant(&on(), Some(&restricted)));
}
