//! Flags, configuration files and environment variables: which source counts, and which values are refused.

use super::*;
use crate::cmd::{Cli, Command, one_line};
use clap::CommandFactory as _;
use clap::Parser as _;

fn args(more: &[&str]) -> ServeArgs {
    let base = ["paxoi", "serve", "--id", "1", "--initial-cluster", "1=127.0.0.1:1,2=127.0.0.1:2"];
    let data: &[&str] = if more.contains(&"--data") { &[] } else { &["--data", "d"] };
    let words = base.iter().chain(data).chain(more);
    match Cli::try_parse_from(words).unwrap().command {
        Command::Serve(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn refusal(more: &[&str]) -> String {
    args(more).settings().unwrap_err().to_string()
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = parse_file("groups = 4\nreads = \"log\"\nclient-timeout = \"1s\"").unwrap();
    let settings = args(&["--groups", "8"]).over(file).settings().unwrap();
    assert_eq!((settings.node.groups, settings.node.reads), (8, ReadMode::Log));
    assert_eq!((settings.node.client_timeout_ms, settings.node.session_ttl_ms), (Ms(1_000), Ms(3_600_000)));
}

/// Returns a valid value for the flag that differs from its default.
fn example(flag: &str) -> &'static str {
    match flag {
        "id" | "groups" | "max-clients" | "checkpoint-log-factor" => "7",
        "data" => "elsewhere",
        "initial-cluster" => "1=127.0.0.1:1",
        "join" | "listen" | "announce-address" => "127.0.0.1:9",
        "reads" => "lease",
        "leaders" => "follow",
        "workers" => "4",
        "client-timeout" | "session-ttl" | "checkpoint-age" | "scrub-interval" => "3s",
        "maxmemory" | "value-bytes-max" | "segment-bytes" | "checkpoint-log-bytes" => "1mb",
        "protocol-versions" => "1-1",
        "config" => "settings.toml",
        "log-format" => "json",
        "insecure" => "true",
        other => panic!("--{other} is new: give an example of it"),
    }
}

/// Returns the name of every flag of `serve`, with the flag's environment variable. `--parent` is left out, because it
/// concerns one process only.
fn flags() -> Vec<(String, Option<String>)> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let flags = serve.get_arguments().filter_map(|flag| {
        let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
        Some((flag.get_long()?.to_owned(), variable))
    });
    flags.filter(|(name, _)| !["help", "version", "parent"].contains(&&**name)).collect()
}

fn parsed(words: &[String]) -> ServeArgs {
    let words = ["paxoi", "serve"].into_iter().map(str::to_owned).chain(words.iter().cloned());
    match Cli::try_parse_from(words).unwrap().command {
        Command::Serve(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn by_flags() -> ServeArgs {
    let words = flags().into_iter().map(|(name, _)| format!("--{name}={}", example(&name)));
    parsed(&words.collect::<Vec<_>>())
}

#[test]
fn every_flag_can_stand_in_a_file() {
    for (name, _) in flags().into_iter().filter(|(name, _)| name != "config") {
        let value = example(&name);
        let is_text = value.parse::<u64>().is_err() && value.parse::<bool>().is_err();
        let line = if is_text { format!("{name} = \"{value}\"") } else { format!("{name} = {value}") };
        let by_file = ServeArgs::default().over(parse_file(&line).unwrap_or_else(|error| panic!("{line}: {error}")));
        assert_eq!(by_file, parsed(&[format!("--{name}={value}")]), "{line}");
        assert_ne!(by_file, ServeArgs::default(), "{line}");
    }
}

/// Sets the variables in a child process, because those of this process must not change while other tests run.
#[test]
fn every_flag_can_stand_in_the_environment() {
    const IN_CHILD: &str = "PAXOI_TEST_OF_VARIABLES";
    if std::env::var_os(IN_CHILD).is_some() {
        assert_eq!(parsed(&[]), by_flags());
        return;
    }
    let name = "cmd::serve::tests::every_flag_can_stand_in_the_environment";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture"]).env(IN_CHILD, "1");
    for (name, variable) in flags() {
        let expected = format!("PAXOI_{}", name.replace('-', "_").to_uppercase());
        assert_eq!(variable.as_deref(), Some(&*expected), "--{name}");
        child.env(expected, example(&name));
    }
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it ran that test");
}

#[test]
fn a_flag_can_turn_off_a_switch_of_the_file() {
    let file = || parse_file("insecure = true").unwrap();
    assert_eq!(args(&["--insecure=no"]).over(file()).insecure, Some(false));
    assert_eq!(args(&["--insecure"]).insecure, Some(true));
    assert!(args(&["--listen", "0.0.0.0:1"]).over(file()).settings().is_ok());
}

#[test]
fn settings_that_birth_has_fixed_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FileDisk::create(folder.path()).unwrap();
    let mut identity = identity::open_or_create(&disk, NodeId(1), 1, || [1; 16]).unwrap();
    let address = |id: u32| format!("127.0.0.1:{id}");
    let member = |id| identity::Member { node: NodeId(id), storage_id: [id as u8; 16], address: address(id) };
    identity.birth = Some(identity::BirthRecord {
        cluster_id: [1; 16],
        groups: 16,
        hash_key: [2; 16],
        session_ttl_ms: Ms(3_600_000),
        value_bytes_max: 64 << 20,
        members: (1..=2).map(member).collect(),
        born_ms: Ms(0),
    });
    identity::save(&disk, &identity).unwrap();
    let data = folder.path().display().to_string();
    let ignored = |more: &[&str]| args(&[&["--data", &data], more].concat()).settings().unwrap().ignored;
    assert_eq!(ignored(&[]), [""; 0]);
    assert_eq!(ignored(&["--session-ttl", "1h", "--value-bytes-max", "64mb", "--groups", "16"]), [""; 0]);
    let told = ignored(&["--session-ttl", "2h", "--value-bytes-max", "1mb"]);
    assert_eq!(
        told,
        [
            "--session-ttl of 7200000 ms has no effect: the cluster was born with 3600000 ms",
            "--value-bytes-max of 1048576 has no effect: the cluster was born with 67108864",
        ]
    );
    assert_eq!(
        identity.birth.as_ref().unwrap().not_added(&[(NodeId(1), address(1)), (NodeId(3), address(3))]),
        ["--initial-cluster does not add node 3: the cluster was born without it; use paxoi member add"]
    );
    let birth = identity.birth.unwrap();
    assert_eq!(birth.other_addresses(&[(NodeId(1), address(1))]), [""; 0]);
    assert_eq!(
        birth.other_addresses(&[(NodeId(1), address(8))]),
        ["--initial-cluster: node 1 is at 127.0.0.1:8 here, but the cluster is born with 127.0.0.1:1"]
    );
    let refused = args(&["--data", &data, "--groups", "8"]).settings().unwrap_err().to_string();
    assert!(refused.contains("--groups 8: the cluster in"), "{refused}");
}

#[test]
fn wrong_settings_are_named_in_one_line() {
    assert!(refusal(&["--groups", "0"]).contains("1 to 16384"));
    assert!(refusal(&["--client-timeout", "5"]).contains("--client-timeout 5"));
    assert!(refusal(&["--listen", "0.0.0.0:1"]).contains("--insecure"));
    assert!(refusal(&["--listen", "nowhere.invalid:1"]).contains("give --listen an address of this machine"));
    assert!(refusal(&["--announce-address", "a"]).contains("--announce-address a: give HOST:PORT"));
    assert!(refusal(&["--announce-address", "0.0.0.0:1"]).contains("give an address and port that clients can reach"));
    assert!(refusal(&["--value-bytes-max", "2gb"]).contains("512mb"));
    assert!(refusal(&["--segment-bytes", "1kb"]).contains("--segment-bytes 1kb: give a size from 65536 bytes"));
    assert!(parse_file("grups = 4").err().unwrap().contains("grups"));
    assert!(parse_file("groups = 4\nid = \"x\"").err().unwrap().starts_with("line 2"));
    assert!(parse_file("groups = 4\ngrups = 4\n").err().unwrap().starts_with("line 2"));
    assert!(parse_file("\n\ngroups = \n").err().unwrap().starts_with("line 3"));
}

#[test]
fn wrong_words_are_told_in_one_line() {
    let told = |words: &[&str]| one_line(&Cli::try_parse_from(words).unwrap_err());
    for (words, expected) in [
        (&["paxoi", "serve", "--group", "4"][..], "--groups"),
        (&["paxoi", "bench"], "--connect"),
        (&["paxoi", "local", "--groups", "x"], "'x' for '--groups <N>'"),
        (&["paxoi", "frob"], "'frob'"),
    ] {
        let line = told(words);
        assert!(line.contains(expected) && !line.contains('\n') && !line.starts_with("error"), "{line}");
    }
}

#[test]
fn member_lists() {
    assert!(parse_members("1=a:1,1=b:2").unwrap_err().contains("twice"));
    assert!(parse_members("1=a:1,2=a:1").unwrap_err().contains("twice"));
    for wrong in ["", "1", "0=a:1", "1=a", "1=:1", "1=a:x", "x=a:1", "1=a b:1", "1=a@b:1"] {
        assert!(parse_members(wrong).is_err(), "{wrong}");
    }
    assert_eq!(parse_members("2=b:2, 1=a:1").unwrap()[1], (NodeId(1), "a:1".to_owned()));
}
