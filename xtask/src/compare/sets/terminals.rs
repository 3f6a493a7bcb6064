//! Terminals, by the console socket and of an exec.

use serde_json::json;

use super::super::{act::Act, bundle::Bundle};

pub(super) fn bundles() -> Vec<Bundle> {
    let on_terminal = |name: &str, questions: &[&str]| {
        Bundle::new(&format!("terminals.{name}"), questions)
            .process(json!({ "terminal": true }))
            .acting([
                Act::MakeOnTerminal(vec!["create".to_owned()]),
                Act::verb("start"),
                Act::Ended,
                Act::verb("delete"),
            ])
    };
    let size = json!({ "consoleSize": { "height": 33, "width": 99 } });
    vec![
        on_terminal("plain", &["look:/dev/console", "look:/dev/tty", "open:/dev/tty"]),
        on_terminal("size", &[]).process(size.clone()),
        on_terminal("as-user", &["look:/dev/console", "look:/dev/pts/0", "open:/dev/tty"])
            .process(json!({ "user": { "uid": 1000, "gid": 1000 } })),
        on_terminal("in-a-user-namespace", &["look:/dev/pts/0"]).users(),
        on_terminal("settings", &["run:/bin/busybox stty -a"]),
        Bundle::new("terminals.size-without", &[]).process(size),
        // There is nobody who would take it.
        Bundle::new("terminals.without-a-socket", &[])
            .process(json!({ "terminal": true }))
            .acting([Act::create()]),
        Bundle::new("terminals.socket-without", &[])
            .acting([Act::MakeOnTerminal(vec!["create".to_owned()])]),
    ]
}
