//! What a program is, told from its bytes without compiling it.

use std::fmt;

use coracle_lifecycle::PrepareError;
use wasmparser::{CustomSectionReader, Encoding, ExternalKind, KnownCustom, Parser, Payload};
use wasmtime::Engine;

use crate::engine::Data;

/// The kinds of programs that can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A core module with `_start`, against `wasi_snapshot_preview1` or `wasi_unstable`.
    Module,
    /// A component that exports `wasi:cli/run@0.2`.
    Command,
    /// A component that exports `wasi:cli/run@0.3`.
    ConcurrentCommand,
    /// A component that exports `wasi:http/incoming-handler@0.2`.
    Server,
    /// A component that exports `wasi:http/handler@0.3`.
    ConcurrentServer,
}

/// What a component exports that makes it a program. One that can be run is run, whatever else it exports.
const ENTRIES: [(&str, Kind); 4] = [
    ("wasi:cli/run@0.2.", Kind::Command),
    ("wasi:cli/run@0.3.", Kind::ConcurrentCommand),
    ("wasi:http/incoming-handler@0.2.", Kind::Server),
    ("wasi:http/handler@0.3.", Kind::ConcurrentServer),
];

impl Kind {
    /// Whether it answers requests, by an instance for each, instead of running.
    pub(crate) fn is_server(self) -> bool {
        matches!(self, Self::Server | Self::ConcurrentServer)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Module => "wasip1 module",
            Self::Command => "wasi:cli/command@0.2 component",
            Self::ConcurrentCommand => "wasi:cli/command@0.3 component",
            Self::Server => "wasi:http/proxy@0.2 component",
            Self::ConcurrentServer => "wasi:http/service@0.3 component",
        })
    }
}

/// What a look at the bytes tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inspected {
    pub(crate) kind: Kind,
    /// Its initial data.
    pub(crate) data: Data,
    /// Whether Go has made it, as it says itself.
    pub(crate) is_go: bool,
}

/// Tells what `bytes` hold.
///
/// # Errors
/// Says what they are instead when they are no program that can run.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspected, PrepareError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(PrepareError::Unsupported(
            "code compiled ahead of time is not accepted, because it is native code: push the WebAssembly program itself"
                .to_owned(),
        ));
    }
    if !bytes.starts_with(b"\0asm") {
        let what = describe_foreign(bytes);
        return Err(PrepareError::Invalid(format!("not a WebAssembly program but {what}")));
    }
    let outline = outline(bytes).map_err(|error| {
        PrepareError::Invalid(format!("damaged or truncated WebAssembly program: {error}"))
    })?;
    Ok(Inspected { kind: outline.kind()?, data: outline.data, is_go: outline.is_go })
}

fn describe_foreign(bytes: &[u8]) -> String {
    const KNOWN: [(&[u8], &str); 8] = [
        (b"\x7fELF", "an ELF file (a native program)"),
        (b"MZ", "a Windows program"),
        (b"\xcf\xfa\xed\xfe", "a macOS program"),
        (b"#!", "a script"),
        (b"\x1f\x8b", "gzip data"),
        (b"\x28\xb5\x2f\xfd", "zstd data"),
        (b"PK", "a zip archive"),
        (b"(", "text (WebAssembly's text format must be translated first)"),
    ];
    if bytes.is_empty() {
        return "an empty file".to_owned();
    }
    let known = KNOWN.iter().find(|(start, _)| bytes.starts_with(start));
    known.map_or_else(
        || format!("a file that begins with {:?}", bytes[..bytes.len().min(8)].escape_ascii().to_string()),
        |(_, what)| (*what).to_owned(),
    )
}

/// The outermost imports and exports of a program, and all its data.
struct Outline {
    encoding: Encoding,
    functions: Vec<String>,
    interfaces: Vec<String>,
    data: Data,
    is_go: bool,
}

fn outline(bytes: &[u8]) -> Result<Outline, wasmparser::BinaryReaderError> {
    let mut outline = Outline {
        encoding: Encoding::Module,
        functions: Vec::new(),
        interfaces: Vec::new(),
        data: Data::default(),
        is_go: false,
    };
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding, .. } if depth == 0 => outline.encoding = encoding,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::DataSection(section) => {
                outline.data.bytes += section.range().len();
                outline.data.pieces += section.count() as usize;
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        outline.functions.push(export.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    outline.interfaces.push(export?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if depth == 0 => outline.is_go |= is_of_go(&section),
            _ => {}
        }
    }
    Ok(outline)
}

/// Whether this is the section of a program's makers, and Go is the language that it names.
fn is_of_go(section: &CustomSectionReader<'_>) -> bool {
    let KnownCustom::Producers(producers) = section.as_known() else { return false };
    let mut fields = producers.into_iter().flatten();
    let language = fields.find(|field| field.name == "language");
    language.is_some_and(|language| language.values.into_iter().flatten().any(|value| value.name == "Go"))
}

impl Outline {
    fn kind(&self) -> Result<Kind, PrepareError> {
        let kind = match self.encoding {
            Encoding::Module => self.functions.iter().any(|name| name == "_start").then_some(Kind::Module),
            Encoding::Component => {
                ENTRIES.into_iter().find(|(entry, _)| self.exports(entry)).map(|(_, kind)| kind)
            }
        };
        kind.ok_or_else(|| PrepareError::Unsupported(self.refusal()))
    }

    /// Whether it exports this interface in a version that is final: a release candidate's is another one.
    fn exports(&self, interface: &str) -> bool {
        let is_final = |patch: &str| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
        self.interfaces.iter().any(|name| name.strip_prefix(interface).is_some_and(is_final))
    }

    fn refusal(&self) -> String {
        match self.encoding {
            Encoding::Module => {
                format!("a module without a function `_start` to run; it exports {}", list(&self.functions))
            }
            Encoding::Component => format!(
                "a component of a world that cannot run here: it exports {}; supported are wasi:cli/run of 0.2 and \
                 0.3, wasi:http/incoming-handler of 0.2 and wasi:http/handler of 0.3",
                list(&self.interfaces),
            ),
        }
    }
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    const LONGEST: usize = 80;
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> =
        names.iter().take(SHOWN).map(|name| name.chars().take(LONGEST).collect()).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> Result<Inspected, PrepareError> {
        inspect(&wat::parse_str(text).unwrap())
    }

    /// A component that exports empty interfaces.
    fn exporting(interfaces: &[&str]) -> String {
        let exports = interfaces.iter().map(|name| format!(r#"(export "{name}" (instance $empty))"#));
        format!("(component (instance $empty) {})", exports.collect::<String>())
    }

    fn refusal(bytes: &[u8]) -> String {
        inspect(bytes).unwrap_err().to_string()
    }

    #[test]
    fn programs_are_told_apart_by_content() {
        let module =
            look(r#"(module (memory 1) (data (i32.const 0) "four") (func (export "_start")))"#).unwrap();
        assert_eq!(module.kind, Kind::Module);
        assert!((4..20).contains(&module.data.bytes), "{:?}", module.data);
        assert_eq!(module.data.pieces, 1);
        for (interface, kind) in [
            ("wasi:cli/run@0.2.0", Kind::Command),
            ("wasi:cli/run@0.2.12", Kind::Command),
            ("wasi:cli/run@0.3.2", Kind::ConcurrentCommand),
            ("wasi:http/incoming-handler@0.2.3", Kind::Server),
            ("wasi:http/handler@0.3.0", Kind::ConcurrentServer),
        ] {
            assert_eq!(look(&exporting(&[interface])).unwrap().kind, kind, "{interface}");
        }
        let both = exporting(&["wasi:http/incoming-handler@0.2.3", "wasi:cli/run@0.2.3"]);
        assert_eq!(look(&both).unwrap().kind, Kind::Command);
    }

    #[test]
    fn a_world_that_is_almost_right_is_refused_by_its_exports() {
        for interface in [
            "wasi:http/incoming-handler@0.1.0",
            "wasi:http/handler@0.2.0",
            "wasi:http/handler@0.3.0-rc-2026-01-06",
            "wasi:cli/run@0.3.0-draft",
            "example:http/handler@0.3.0",
        ] {
            let refused = look(&exporting(&[interface])).unwrap_err();
            assert!(refused.to_string().contains(&format!("it exports {interface};")), "{refused}");
        }
    }

    #[test]
    fn data_inside_components_counts() {
        let text = r#"(component
            (core module (memory 1) (data (i32.const 0) "0123456789012345678901234567890123456789"))
            (instance $run) (export "wasi:cli/run@0.2.3" (instance $run)))"#;
        assert!(look(text).unwrap().data.bytes >= 40);
    }

    #[test]
    fn an_export_of_an_inner_part_is_none_of_the_program() {
        let text = r#"(component (core module (func (export "_start"))))"#;
        assert!(look(text).unwrap_err().to_string().contains("it exports nothing"));
    }

    #[test]
    fn refusals_name_the_cause() {
        assert!(refusal(b"").contains("an empty file"));
        assert!(refusal(b"\x7fELF\x02\x01").contains("ELF"));
        assert!(refusal(b"#!/bin/sh\n").contains("script"));
        assert!(refusal(b"(module)").contains("text"));
        assert!(refusal(b"\xff\xfehello").contains(r"\\xff\\xfehello"), "{}", refusal(b"\xff\xfehello"));
        let whole = wat::parse_str(r#"(module (func (export "_start")) (func (export "other")))"#).unwrap();
        assert!(refusal(&whole[..whole.len() - 3]).contains("truncated"));
        let library = look(r#"(module (func (export "add")) (memory (export "_start") 1))"#).unwrap_err();
        assert_eq!(
            library,
            PrepareError::Unsupported(
                "a module without a function `_start` to run; it exports add".to_owned()
            )
        );
    }

    #[test]
    fn code_that_somebody_else_compiled_is_refused() {
        let engine = crate::engine::engine(crate::engine::Layout::Copied).unwrap();
        let compiled = engine.precompile_module(&wat::parse_str("(module)").unwrap()).unwrap();
        assert!(refusal(&compiled).contains("compiled ahead of time"));
    }
}
