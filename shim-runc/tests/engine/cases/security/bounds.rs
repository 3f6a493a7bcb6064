//! Specs that are larger than anything that is reserved for them.

use std::time::{Duration, Instant};

use serde_json::json;
use shim_core::{Container, Kind};

use super::{cases, mount};
use crate::{Bench, bundle::Made};

/// More than there is room for anywhere.
const MANY: usize = 100_000;
/// Longer than any path that the kernel takes.
const LONG: usize = 300_000;

/// A spec is refused, or fails at its start, within a time that a client would wait.
async fn fails(bench: &Bench, made: Made, expected: &str) {
    let begun = Instant::now();
    let why = match made.create(bench).await {
        Err(err) => format!("{err:#}"),
        Ok(mut running) => {
            let err = running.container.start().await.unwrap_err();
            running.end_quietly().await;
            format!("{err:#}")
        }
    };
    assert!(why.contains(expected), "{why:.400?} does not say {expected:?}");
    assert!(begun.elapsed() < limit(), "{expected}: {:?}", begun.elapsed());
    // And the next one is made as ever.
    assert_eq!(Made::script("echo fine").output(bench).await, "fine\n");
}

/// How long a refusal may take; on a machine without KVM, which says so, as many times longer.
fn limit() -> Duration {
    let patience = std::env::var("SHIM_PATIENCE").ok().and_then(|factor| factor.parse().ok());
    Duration::from_secs(20) * patience.unwrap_or(1)
}

cases! {
    async fn huge_spec_of_files_is_refused(bench: &Bench) {
        for count in [1100, MANY] {
            let made = Made::script("true").with(|spec| {
                let binds = (0..count).map(|index| json!({ "destination": format!("/m/{index}"),
                    "type": "bind", "source": "/etc/hostname", "options": ["bind"] }));
                spec["mounts"].as_array_mut().unwrap().extend(binds);
            });
            let begun = Instant::now();
            let err = made.create(bench).await.map(drop).unwrap_err();
            assert_eq!(err.kind(), Kind::ResourceExhausted, "{err:#}");
            assert!(format!("{err:#}").contains(" files at once"), "{err:#}");
            assert!(begun.elapsed() < limit(), "{:?}", begun.elapsed());
        }
    }

    async fn huge_spec_of_steps_is_done(bench: &Bench) {
        let made = Made::script("grep -c /deep /proc/self/mountinfo").with(|spec| {
            let all = (0..500).map(|index| json!({ "destination": format!("/tmp/{index}/deep"),
                "type": "tmpfs", "source": "tmpfs" }));
            spec["mounts"].as_array_mut().unwrap().extend(all);
            let paths = (0..MANY).map(|index| json!(format!("/not/there/{index:064}")));
            spec["linux"]["maskedPaths"].as_array_mut().unwrap().extend(paths);
        });
        assert_eq!(made.output(bench).await, "500\n");
    }

    async fn huge_spec_of_words_is_the_kernels_to_refuse(bench: &Bench) {
        let many: Vec<_> = (0..MANY).map(|index| format!("VARIABLE_{index}={:064}", index)).collect();
        let made = Made::script("true").with(|spec| spec["process"]["env"] = json!(many));
        fails(bench, made, "E2BIG").await;
        let made = Made::command(&["/bin/true"])
            .with(|spec| spec["process"]["args"].as_array_mut().unwrap().extend(many.iter().map(|one| json!(one))));
        fails(bench, made, "E2BIG").await;
    }

    async fn huge_spec_of_long_texts_is_refused(bench: &Bench) {
        let long = "x".repeat(LONG);
        let path = format!("/{}", "directory/".repeat(LONG / 10));
        type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
        let changes: [(Change<'_>, &str); 9] = [
            (&|spec| spec["process"]["args"] = json!([long]), "executable file not found in $PATH"),
            (&|spec| spec["process"]["args"] = json!([path]), "ENAMETOOLONG"),
            (&|spec| spec["process"]["args"] = json!(["/bin/true", long]), "E2BIG"),
            (&|spec| spec["process"]["cwd"] = json!(path), "ENAMETOOLONG"),
            (&|spec| spec["hostname"] = json!(long), "set hostname"),
            (&|spec| spec["linux"]["maskedPaths"] = json!([path]), "ENAMETOOLONG"),
            (&|spec| mount(spec, json!({ "destination": path, "type": "tmpfs", "source": "t" })), "ENAMETOOLONG"),
            (&|spec| mount(spec, json!({ "destination": "/tmp", "type": "tmpfs", "source": "t",
                "options": [format!("mode=755,{long}")] })), "mount tmpfs on /tmp"),
            (&|spec| spec["linux"]["sysctl"] = json!({ "kernel.shmmni": long }), "set sysctl"),
        ];
        for (change, expected) in changes {
            fails(bench, Made::script("true").with(change), expected).await;
        }
    }

    async fn huge_spec_of_numbers_is_refused(bench: &Bench) {
        let made = Made::script("true")
            .with(|spec| spec["process"]["user"]["additionalGids"] = json!(vec![7; 5000]));
        fails(bench, made, "too many groups").await;
        let made = Made::script("true").with(|spec| {
            spec["process"]["terminal"] = true.into();
            spec["process"]["consoleSize"] = json!({ "height": 1_u64 << 40, "width": 7 });
        });
        let err = made.create_with(bench, shim_core::Streams::Terminal).await.unwrap_err();
        assert!(format!("{err:#}").contains("larger than a terminal"), "{err:#}");
    }

    async fn huge_spec_of_joined_namespaces_fits_its_request(bench: &Bench) {
        // Every kind once is the most there is; the clock's offsets are the longest text.
        let made = Made::script("true").with(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
            spec["linux"]["timeOffsets"] = json!({
                "monotonic": { "secs": i64::MAX, "nanosecs": u32::MAX },
                "boottime": { "secs": i64::MIN, "nanosecs": u32::MAX },
            });
        });
        fails(bench, made, "make a time namespace").await;
    }
}
