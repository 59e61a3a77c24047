//! The adapters' file: the ConfigMap of the dynamic LoRA sidecar, read into a [`Desired`].
//!
//! In: the text of one file with the root key `vLLMLoRAConfig`. Out: which adapters must be there, which
//! must not, where the model server is, and warnings; or one error with its line, key and what was expected.
//! It never touches the file system or the network, and it never guesses at a missing `source`.

use std::collections::BTreeMap;

use crate::yaml::{ConfigError, Document, Tree};

/// An adapter that has to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Adapter {
    /// Name under which clients ask for it.
    pub(super) id: String,
    /// Path or repository, as the model server understands it.
    pub(super) source: String,
    /// The model below it, if the file names one.
    pub(super) base_model: Option<String>,
}

/// What the file asks for. An adapter named on both sides is on neither: it is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    /// To be loaded, by id.
    pub(super) exist: BTreeMap<String, Adapter>,
    /// Not to be loaded.
    pub(super) forbidden: std::collections::BTreeSet<String>,
    /// Named on both sides.
    pub(super) contradicted: std::collections::BTreeSet<String>,
}

/// One good file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoraConfig {
    /// Model server's host name or address.
    pub(super) host: String,
    /// Model server's port.
    pub(super) port: u16,
    /// For people.
    pub(super) name: Option<String>,
    /// The adapters.
    pub(super) desired: Desired,
    /// What was accepted and deserves a look.
    pub(super) warnings: Vec<String>,
}

impl LoraConfig {
    /// Reads a whole file.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let document = Document::parse(text)?;
        let file = document.root();
        if file.get("kind").is_some_and(|kind| kind.text() == Ok("ConfigMap")) && file.get(ROOT).is_none() {
            return Err(file.problem(format!(
                "expected the key {ROOT}, found a ConfigMap manifest: apply it to the cluster and mount it as a \
                 volume; the file then holds what stands under data"
            )));
        }
        let root = file.required(ROOT, "the adapters' configuration")?;
        let mut warnings = Vec::new();
        warn_of_unknown(&file, &[ROOT], &mut warnings)?;
        warn_of_unknown(&root, ROOT_KEYS, &mut warnings)?;
        let desired = Reader::new(&root, &mut warnings)?.read(&root)?;
        Ok(Self {
            host: host(&root)?,
            port: match root.get("port") {
                Some(port) => u16::try_from(port.integer(1, 65_535)?).unwrap_or(DEFAULT_PORT),
                None => DEFAULT_PORT,
            },
            name: optional_text(&root, "name")?,
            desired,
            warnings,
        })
    }
}

/// Collects the two lists.
struct Reader<'w> {
    default_base_model: Option<String>,
    exist: BTreeMap<String, (Adapter, u64)>,
    forbidden: BTreeMap<String, u64>,
    warnings: &'w mut Vec<String>,
}

impl<'w> Reader<'w> {
    fn new(root: &Tree<'_>, warnings: &'w mut Vec<String>) -> Result<Self, ConfigError> {
        let default_base_model = optional_text(root, "defaultBaseModel")?;
        Ok(Self { default_base_model, exist: BTreeMap::new(), forbidden: BTreeMap::new(), warnings })
    }

    fn read(mut self, root: &Tree<'_>) -> Result<Desired, ConfigError> {
        for model in self.models(root, "ensureExist")? {
            self.wanted(&model)?;
        }
        for model in self.models(root, "ensureNotExist")? {
            let id = self.id(&model)?;
            self.forbidden.insert(id, model.line());
        }
        let count = self.exist.len() + self.forbidden.len();
        if count > MAX_ADAPTERS {
            return Err(root.problem(format!("expected at most {MAX_ADAPTERS} adapters in all, found {count}")));
        }
        Ok(self.settle())
    }

    fn models<'a>(&mut self, root: &Tree<'a>, key: &str) -> Result<Vec<Tree<'a>>, ConfigError> {
        let Some(section) = root.get(key) else { return Ok(Vec::new()) };
        warn_of_unknown(&section, &["models"], self.warnings)?;
        // A template with nothing to list writes `models:` alone; that is an empty list.
        if section.map()?.iter().any(|(name, value)| *name == "models" && value.is_null()) {
            return Ok(Vec::new());
        }
        section.required("models", "a list of adapters")?.list()
    }

    fn wanted(&mut self, model: &Tree<'_>) -> Result<(), ConfigError> {
        let id = self.id(model)?;
        let line = model.line();
        if let Some(flag) = model.get("toRemove")
            && flag.boolean()?
        {
            let key = flag.path();
            self.warnings
                .push(format!("line {}: {key}: moves \"{id}\" to ensureNotExist; write it there", flag.line()));
            self.forbidden.insert(id, line);
            return Ok(());
        }
        let source = model.required("source", "the path or repository of the adapter")?.text()?.to_owned();
        let base_model = optional_text(model, "base-model")?.or_else(|| self.default_base_model.clone());
        if let Some((first, first_line)) = self.exist.get(&id) {
            if first.source != source {
                self.warnings.push(format!(
                    "line {line}: {}: \"{id}\" stands on line {first_line} too, with another source; the first counts",
                    model.path()
                ));
            }
            return Ok(());
        }
        self.exist.insert(id.clone(), (Adapter { id, source, base_model }, line));
        Ok(())
    }

    fn id(&mut self, model: &Tree<'_>) -> Result<String, ConfigError> {
        warn_of_unknown(model, MODEL_KEYS, self.warnings)?;
        let id = model.required("id", "the name of the adapter")?;
        let text = id.text()?;
        if text.len() > MAX_ID_BYTES {
            return Err(id.problem(format!("expected at most {MAX_ID_BYTES} bytes, found {}", text.len())));
        }
        Ok(text.to_owned())
    }

    fn settle(self) -> Desired {
        let mut desired = Desired::default();
        for (id, (adapter, line)) in self.exist {
            match self.forbidden.get(&id) {
                Some(other) => {
                    self.warnings.push(format!(
                        "\"{id}\" is in ensureExist (line {line}) and in ensureNotExist (line {other}); it is left as it is"
                    ));
                    desired.contradicted.insert(id);
                }
                None => {
                    desired.exist.insert(id, adapter);
                }
            }
        }
        let contradicted = &desired.contradicted;
        desired.forbidden = self.forbidden.into_keys().filter(|id| !contradicted.contains(id)).collect();
        desired
    }
}

fn host(root: &Tree<'_>) -> Result<String, ConfigError> {
    let Some(tree) = root.get("host") else { return Ok(DEFAULT_HOST.to_owned()) };
    let host = tree.text()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{bare}]"));
    }
    if host.contains(|c: char| c.is_whitespace() || "/:@?#[]".contains(c)) {
        return Err(tree.wrong("a host name or address without scheme and port"));
    }
    Ok(host.to_owned())
}

fn optional_text(tree: &Tree<'_>, key: &str) -> Result<Option<String>, ConfigError> {
    match tree.get(key) {
        // The old default is written out as "" in some charts.
        Some(value) if value.text().is_err_and(|error| error.problem.contains("an empty string")) => Ok(None),
        Some(value) => value.text().map(|text| Some(text.to_owned())),
        None => Ok(None),
    }
}

/// A misspelt key would silently do nothing: the schema allows any.
fn warn_of_unknown(tree: &Tree<'_>, known: &[&str], warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (key, value) in tree.map()? {
        if !known.contains(&key) {
            let path = value.path();
            warnings.push(format!(
                "line {}: {path}: unknown key, ignored; known are {}",
                value.line(),
                known.join(", ")
            ));
        }
    }
    Ok(())
}

const ROOT: &str = "vLLMLoRAConfig";
const ROOT_KEYS: &[&str] = &["host", "port", "name", "defaultBaseModel", "ensureExist", "ensureNotExist"];
const MODEL_KEYS: &[&str] = &["id", "source", "base-model", "toRemove"];
const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 8000;
/// Adapters of one file; each is a series and a call. More is an error: no server holds that many.
const MAX_ADAPTERS: usize = 1000;
/// A longer name is an error; it would be a label value.
const MAX_ID_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample of the sidecar's own deployment.yaml, as a mounted file shows it.
    const OLD_SAMPLE: &str = include_str!("../../tests/lora/old-sample.yaml");

    fn error(text: &str) -> String {
        LoraConfig::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_old_sidecars_sample_reads_without_a_warning() {
        let config = LoraConfig::parse(OLD_SAMPLE).unwrap();
        assert_eq!((config.host.as_str(), config.port), ("localhost", 8000));
        assert_eq!(config.name.as_deref(), Some("uncensored-loras-qwen"));
        let ids: Vec<_> = config.desired.exist.keys().map(String::as_str).collect();
        assert_eq!(ids, ["uncensored-lora-v1", "uncensored-lora-v3", "uncensored-lora-v4"]);
        for adapter in config.desired.exist.values() {
            assert_eq!(adapter.source, "nicoboss/Qwen3-32B-Uncensored");
            assert_eq!(adapter.base_model.as_deref(), Some("Qwen/Qwen3-32B"));
        }
        assert!(config.desired.forbidden.contains("uncensored-lora-v2"));
        assert_eq!(config.warnings, Vec::<String>::new());
    }

    #[test]
    fn an_adapters_own_base_model_wins_over_the_default() {
        let text = "vLLMLoRAConfig:\n  defaultBaseModel: base\n  ensureExist:\n    models:\n    - {id: a, source: /a}\n    - {id: b, source: /b, base-model: other}\n";
        let exist = LoraConfig::parse(text).unwrap().desired.exist;
        assert_eq!(exist["a"].base_model.as_deref(), Some("base"));
        assert_eq!(exist["b"].base_model.as_deref(), Some("other"));
    }

    #[test]
    fn a_missing_source_is_named_with_line_and_key() {
        let text = "vLLMLoRAConfig:\n  ensureExist:\n    models:\n    - id: a\n      source: /a\n    - id: b\n";
        let said = error(text);
        assert!(said.starts_with("line 6, column "), "{said}");
        assert!(said.ends_with("vLLMLoRAConfig.ensureExist.models[1].source: expected the path or repository of the adapter, found nothing"), "{said}");
    }

    #[test]
    fn a_wrong_type_is_named_with_line_key_and_what_was_found() {
        let said = error("vLLMLoRAConfig:\n  port: eighty\n");
        assert_eq!(
            said,
            "line 2, column 9: vLLMLoRAConfig.port: expected a whole number from 1 to 65535, found \"eighty\""
        );
        let said = error("vLLMLoRAConfig:\n  ensureExist:\n    models:\n    - id: 7\n      source: /a\n");
        assert!(said.contains("line 4, column 11: vLLMLoRAConfig.ensureExist.models[0].id: expected a string (put it in quotes), found 7"), "{said}");
        let said = error("vLLMLoRAConfig:\n  ensureExist:\n    models: all\n");
        assert!(said.contains("models: expected a list, found \"all\""), "{said}");
        let said = error("vLLMLoRAConfig:\n  ensureNotExist: {}\n");
        assert!(said.contains("ensureNotExist.models: expected a list of adapters, found nothing"), "{said}");
        assert!(error("vLLMLoRAConfig:\n  host: http://x\n").contains("without scheme and port, found \"http://x\""));
    }

    #[test]
    fn broken_yaml_is_named_with_its_line() {
        let said = error("vLLMLoRAConfig:\n  host: \"x\n");
        assert!(said.starts_with("line ") && said.contains("not valid YAML"), "{said}");
    }

    #[test]
    fn a_file_without_the_root_key_or_a_whole_manifest_says_what_to_do() {
        assert!(error("ensureExist: {models: []}\n").contains("vLLMLoRAConfig: expected"));
        let manifest = "apiVersion: v1\nkind: ConfigMap\ndata:\n  configmap.yaml: |\n    vLLMLoRAConfig: {}\n";
        assert!(error(manifest).contains("mount it as a volume"));
        assert!(LoraConfig::parse("").is_err());
    }

    #[test]
    fn source_is_optional_for_removal_and_a_bare_list_is_empty() {
        let text = "vLLMLoRAConfig:\n  ensureExist:\n    models:\n  ensureNotExist:\n    models:\n    - id: gone\n";
        let desired = LoraConfig::parse(text).unwrap().desired;
        assert!(desired.exist.is_empty());
        assert!(desired.forbidden.contains("gone"));
    }

    #[test]
    fn an_adapter_on_both_sides_is_on_neither_and_is_warned_of_once() {
        let text = "vLLMLoRAConfig:\n  ensureExist:\n    models:\n    - {id: a, source: /a}\n  ensureNotExist:\n    models:\n    - {id: a}\n";
        let config = LoraConfig::parse(text).unwrap();
        assert!(config.desired.exist.is_empty() && config.desired.forbidden.is_empty());
        assert!(config.desired.contradicted.contains("a"));
        assert_eq!(config.warnings.len(), 1);
    }

    #[test]
    fn to_remove_forbids_the_adapter_with_a_warning() {
        let text = "vLLMLoRAConfig:\n  ensureExist:\n    models:\n    - {id: a, source: /a, toRemove: true}\n    - {id: b, source: /b, toRemove: false}\n";
        let config = LoraConfig::parse(text).unwrap();
        assert!(config.desired.forbidden.contains("a"));
        assert!(config.desired.exist.contains_key("b"));
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
        assert!(config.warnings[0].contains("line 4"));
    }

    #[test]
    fn a_misspelt_key_and_a_second_source_are_warned_of() {
        let text = "vLLMLoRAConfig:\n  ensureExists: {}\n  ensureExist:\n    models:\n    - {id: a, source: /a}\n    - {id: a, source: /b}\n";
        let config = LoraConfig::parse(text).unwrap();
        assert_eq!(config.desired.exist["a"].source, "/a");
        assert!(config.warnings[0].contains("vLLMLoRAConfig.ensureExists: unknown key"), "{:?}", config.warnings);
        assert!(config.warnings[1].contains("the first counts"), "{:?}", config.warnings);
    }

    #[test]
    fn an_ipv6_host_gets_its_brackets() {
        assert_eq!(LoraConfig::parse("vLLMLoRAConfig: {host: \"::1\"}").unwrap().host, "[::1]");
        assert_eq!(LoraConfig::parse("vLLMLoRAConfig: {host: 10.0.0.7, port: 80}").unwrap().host, "10.0.0.7");
    }
}
