//! What requests mean.

use super::*;

fn any(type_url: &str) -> Any {
    Any { type_url: type_url.into(), ..Default::default() }
}

#[test]
fn no_config_has_three_forms() {
    for none in [
        None,
        Some(any("")),
        Some(any(EMPTY)),
        Some(any("type.googleapis.com/google.protobuf.Empty")),
    ] {
        assert_eq!(config(none.as_ref()), None, "{none:?}");
    }
    let given = config(Some(&any("runtime.v1.PodSandboxConfig"))).unwrap();
    assert_eq!(given.type_url, "runtime.v1.PodSandboxConfig");
}

#[test]
fn paths_do_not_depend_on_where_we_stand() {
    let request = |bundle: &str, netns: &str| CreateSandboxRequest {
        sandbox_id: "p1".into(),
        bundle_path: bundle.into(),
        netns_path: netns.into(),
        ..Default::default()
    };
    assert_eq!(parse_create(request("/b", "")).unwrap().netns, None);
    assert_eq!(parse_create(request("/b", "/n")).unwrap().netns, Some("/n".into()));
    assert!(parse_create(request("b", "")).is_err());
    assert!(parse_create(request("/b", "n")).is_err());
}
