//! The seam between model servers: how each is asked, and what its answers mean.
//!
//! In: an adapter, or an answer's status and body. Out: a path with a JSON body, or a [`Verdict`].
//! It never sends anything. vLLM's answers are recorded ones (`tests/lora/`); SGLang's are read from its source.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::config::Adapter;

/// Which server is behind the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// SGLang: `/load_lora_adapter`.
    Sglang,
    /// vLLM: `/v1/load_lora_adapter`.
    Vllm,
}

/// One call to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Absolute path.
    pub(super) path: &'static str,
    /// JSON body.
    pub(super) body: String,
}

/// What the server has, from one listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Adapters by name, with the source the server tells.
    pub(super) adapters: BTreeMap<String, Option<String>>,
    /// Names of base models: never to be loaded over, never to be unloaded.
    pub(super) base_models: BTreeSet<String>,
}

/// What an answer to a load or an unload means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Load: the server already had an adapter of this name. Unload: it had none.
    AlreadySo,
    /// Done as asked.
    Done,
    /// Not done.
    Failed(Reason),
    /// Load: not before an unload that broke off has been asked for again.
    UnloadFirst,
}

/// Why a call failed; bounded, because it is a label value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// The answer is not what the API promises.
    BadAnswer,
    /// The name belongs to a base model.
    Conflict,
    /// The server has no such API: updating adapters at run time is switched off.
    Disabled,
    /// The server took the adapter and lost it again.
    Evicted,
    /// The server refused the request.
    Invalid,
    /// The server finds no adapter at the source.
    NotFound,
    /// The server failed.
    ServerError,
    /// No answer in time.
    Timeout,
    /// The server wants other credentials.
    Unauthorized,
    /// No connection.
    Unreachable,
}

impl Reason {
    /// Label value.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::BadAnswer => "bad_answer",
            Self::Conflict => "conflict",
            Self::Disabled => "disabled",
            Self::Evicted => "evicted",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
            Self::Unreachable => "unreachable",
        }
    }

    /// What a person can do about it.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::BadAnswer => "is this the model server's port?",
            Self::Conflict => "choose another id: this one is the base model's",
            Self::Disabled => {
                "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, SGLang with --enable-lora"
            }
            Self::Evicted => "the server holds fewer adapters than the file lists; raise its limit",
            Self::Invalid => "see the server's words",
            Self::NotFound => "the server must be able to read the source",
            Self::ServerError | Self::Timeout | Self::Unreachable => "it will be tried again",
            Self::Unauthorized => "give the server's key with --api-key-file or VLLM_API_KEY",
        }
    }
}

impl Engine {
    /// Answers 200 once the server serves.
    pub(super) const HEALTH: &'static str = "/health";
    /// Lists models and, where the server tells them, adapters.
    pub(super) const MODELS: &'static str = "/v1/models";

    /// The call that loads an adapter; `in_place` replaces one of the same name.
    pub(super) fn load(self, adapter: &Adapter, in_place: bool) -> Call {
        let mut body = serde_json::json!({ "lora_name": adapter.id, "lora_path": adapter.source });
        match self {
            Self::Sglang => Call { path: "/load_lora_adapter", body: body.to_string() },
            Self::Vllm => {
                if let (Some(base), Some(map)) = (&adapter.base_model, body.as_object_mut()) {
                    map.insert("base_model_name".to_owned(), base.as_str().into());
                }
                if let (true, Some(map)) = (in_place, body.as_object_mut()) {
                    map.insert("load_inplace".to_owned(), true.into());
                }
                Call { path: "/v1/load_lora_adapter", body: body.to_string() }
            }
        }
    }

    /// The call that unloads an adapter.
    pub(super) fn unload(self, id: &str) -> Call {
        let path = match self {
            Self::Sglang => "/unload_lora_adapter",
            Self::Vllm => "/v1/unload_lora_adapter",
        };
        Call { path, body: serde_json::json!({ "lora_name": id }).to_string() }
    }

    /// Can it swap an adapter's weights under the same name?
    pub(super) const fn loads_in_place(self) -> bool {
        matches!(self, Self::Vllm)
    }

    /// May a listing leave out adapters that are loaded? SGLang 0.5.2 lists base models only, 0.5.5 lists both.
    pub(super) const fn may_hide_adapters(self) -> bool {
        matches!(self, Self::Sglang)
    }

    /// Reads the answer to a load.
    pub(super) fn read_load(self, status: u16, body: &[u8]) -> Verdict {
        let said = words(body).to_ascii_lowercase();
        match status {
            200..=299 => Verdict::Done,
            _ if said.contains("conflicts with a served base model") => Verdict::Failed(Reason::Conflict),
            400 | 409 if said.contains("already been loaded") => Verdict::AlreadySo,
            400 if self == Self::Sglang && (said.contains("already exists") || said.contains("already loaded")) => {
                Verdict::AlreadySo
            }
            400 if self == Self::Sglang && said.contains("incomplete unload") => Verdict::UnloadFirst,
            400 | 500 if said.contains("lora is not enabled") => Verdict::Failed(Reason::Disabled),
            // vLLM's workers refuse what is no fitting adapter with the words of an accident.
            500 if said.contains("add_lora") => Verdict::Failed(Reason::Invalid),
            404 if is_route_missing(body) => Verdict::Failed(Reason::Disabled),
            404 => Verdict::Failed(Reason::NotFound),
            _ => Verdict::Failed(by_status(status)),
        }
    }

    /// Reads the answer to an unload.
    pub(super) fn read_unload(self, status: u16, body: &[u8]) -> Verdict {
        let said = words(body).to_ascii_lowercase();
        match status {
            200..=299 => Verdict::Done,
            404 if is_route_missing(body) => Verdict::Failed(Reason::Disabled),
            404 => Verdict::AlreadySo,
            400 if self == Self::Sglang && said.contains("does not exist") => Verdict::AlreadySo,
            400 if said.contains("lora is not enabled") => Verdict::Failed(Reason::Disabled),
            _ => Verdict::Failed(by_status(status)),
        }
    }

    /// Reads the answer to [`Engine::MODELS`].
    pub(super) fn read_listing(status: u16, body: &[u8]) -> Result<Listing, Reason> {
        if !(200..=299).contains(&status) {
            return Err(if status == 404 { Reason::BadAnswer } else { by_status(status) });
        }
        let models: Models = serde_json::from_slice(body).map_err(|_| Reason::BadAnswer)?;
        let mut listing = Listing::default();
        for model in models.data {
            match model.parent {
                Some(_) => {
                    listing.adapters.insert(model.id, model.root);
                }
                None => {
                    listing.base_models.insert(model.id);
                }
            }
        }
        Ok(listing)
    }
}

/// The server's own sentence, whatever it is wrapped in.
pub(super) fn words(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error: Some(Inner::Object { message }), .. }) => message,
        Ok(Refusal { error: Some(Inner::Text(text)), .. }) => text,
        Ok(Refusal { error_message: Some(text), .. }) => text,
        Ok(Refusal { detail: Some(detail), .. }) => detail.to_string(),
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS_CHARS).collect()
}

fn is_route_missing(body: &[u8]) -> bool {
    // FastAPI's own 404; the API's 404 has an `error` object.
    matches!(
        serde_json::from_slice::<Refusal>(body),
        Ok(Refusal { error: None, detail: Some(detail), .. }) if detail == "Not Found"
    )
}

const fn by_status(status: u16) -> Reason {
    match status {
        401 | 403 => Reason::Unauthorized,
        404 => Reason::NotFound,
        405 => Reason::Disabled,
        408 | 504 => Reason::Timeout,
        400..=499 => Reason::Invalid,
        500..=599 => Reason::ServerError,
        _ => Reason::BadAnswer,
    }
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    root: Option<String>,
    parent: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<Inner>,
    error_message: Option<String>,
    detail: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Inner {
    Object { message: String },
    Text(String),
}

/// A server's sentence goes into one log line, cut here.
const MAX_WORDS_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! recorded {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/lora/vllm/", $name))
        };
    }

    fn adapter() -> Adapter {
        Adapter { id: "lora-1".into(), source: "/opt/servers/models/tiny-lora-1".into(), base_model: None }
    }

    #[test]
    fn vllm_is_asked_as_recorded() {
        let sent = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["body"].clone();
        let load = Engine::Vllm.load(&adapter(), false);
        assert_eq!(load.path, "/v1/load_lora_adapter");
        let body: serde_json::Value = serde_json::from_str(&load.body).unwrap();
        assert_eq!(body, sent(recorded!("load.request.json")));
        let body: serde_json::Value = serde_json::from_str(&Engine::Vllm.load(&adapter(), true).body).unwrap();
        assert_eq!(body, sent(recorded!("load-inplace.request.json")));
        let body: serde_json::Value = serde_json::from_str(&Engine::Vllm.unload("lora-1").body).unwrap();
        assert_eq!(body, sent(recorded!("unload-again.request.json")));
    }

    #[test]
    fn the_base_model_is_told_as_the_old_sidecar_told_it() {
        let named = Adapter { base_model: Some("base".into()), ..adapter() };
        assert!(Engine::Vllm.load(&named, false).body.contains(r#""base_model_name":"base""#));
    }

    #[test]
    fn recorded_answers_to_a_load_are_understood() {
        let read = |status, body: &[u8]| Engine::Vllm.read_load(status, body);
        assert_eq!(read(200, recorded!("load.body")), Verdict::Done);
        assert_eq!(read(400, recorded!("load-again.body")), Verdict::AlreadySo);
        assert_eq!(read(404, recorded!("load-missing-path.body")), Verdict::Failed(Reason::NotFound));
        assert_eq!(read(400, recorded!("load-base-name.body")), Verdict::Failed(Reason::Conflict));
        assert_eq!(read(400, recorded!("load-empty-name.body")), Verdict::Failed(Reason::Invalid));
        assert_eq!(read(400, recorded!("load-no-path.body")), Verdict::Failed(Reason::Invalid));
        assert_eq!(read(400, recorded!("load-malformed.body")), Verdict::Failed(Reason::Invalid));
        assert_eq!(read(404, recorded!("load-switched-off.body")), Verdict::Failed(Reason::Disabled));
        assert_eq!(read(500, recorded!("load-not-enabled.body")), Verdict::Failed(Reason::Disabled));
        assert_eq!(read(404, recorded!("load-inplace-missing-path.body")), Verdict::Failed(Reason::NotFound));
        assert_eq!(read(500, recorded!("load-rank.body")), Verdict::Failed(Reason::Invalid));
        assert_eq!(read(500, recorded!("load-noweights.body")), Verdict::Failed(Reason::Invalid));
        assert_eq!(read(401, recorded!("load-nokey.body")), Verdict::Failed(Reason::Unauthorized));
        assert_eq!(read(500, b"Internal Server Error"), Verdict::Failed(Reason::ServerError));
    }

    #[test]
    fn recorded_answers_to_an_unload_are_understood() {
        let read = |status, body: &[u8]| Engine::Vllm.read_unload(status, body);
        assert_eq!(read(200, recorded!("unload.body")), Verdict::Done);
        assert_eq!(read(404, recorded!("unload-again.body")), Verdict::AlreadySo);
        assert_eq!(read(400, recorded!("unload-empty.body")), Verdict::Failed(Reason::Invalid));
        assert_eq!(read(404, recorded!("unload-switched-off.body")), Verdict::Failed(Reason::Disabled));
    }

    #[test]
    fn a_recorded_listing_tells_adapters_from_base_models() {
        let listing = Engine::read_listing(200, recorded!("models.body")).unwrap();
        let names: Vec<_> = listing.adapters.keys().map(String::as_str).collect();
        assert_eq!(names, ["lora-1", "lora-2", "lora-3"]);
        assert_eq!(listing.adapters["lora-2"].as_deref(), Some("/opt/servers/models/tiny-lora-2"));
        assert!(listing.base_models.contains("tiny-llama"));
        let after = Engine::read_listing(200, recorded!("models-after-unload.body")).unwrap();
        assert!(!after.adapters.contains_key("lora-1"));
    }

    #[test]
    fn a_listing_that_is_none_is_an_error_and_never_an_empty_one() {
        assert_eq!(Engine::read_listing(200, b"<html>"), Err(Reason::BadAnswer));
        assert_eq!(Engine::read_listing(200, br#"{"object":"list"}"#), Err(Reason::BadAnswer));
        assert_eq!(Engine::read_listing(503, b""), Err(Reason::ServerError));
        assert_eq!(Engine::read_listing(401, b"{}"), Err(Reason::Unauthorized));
    }

    /// Texts as SGLang 0.5.23 words them in its source.
    #[test]
    fn sglangs_answers_are_understood() {
        let sglang = Engine::Sglang;
        let failed = |text: &str| format!(r#"{{"success":false,"error_message":"{text}","loaded_adapters":{{}}}}"#);
        assert_eq!(sglang.load(&adapter(), true).path, "/load_lora_adapter");
        assert!(!sglang.load(&adapter(), true).body.contains("load_inplace"));
        assert_eq!(
            sglang.read_load(200, br#"{"success":true,"error_message":null,"loaded_adapters":{"a":"/a"}}"#),
            Verdict::Done
        );
        let exists = failed("LoRA with name a already exists. Loaded LoRAs: dict_keys(['a'])");
        assert_eq!(sglang.read_load(400, exists.as_bytes()), Verdict::AlreadySo);
        let twice = failed("Failed to load LoRA adapter a because it is already loaded");
        assert_eq!(sglang.read_load(400, twice.as_bytes()), Verdict::AlreadySo);
        let broken = failed("LoRA adapter 'a' has an incomplete unload. Retry the unload before loading it again.");
        assert_eq!(sglang.read_load(400, broken.as_bytes()), Verdict::UnloadFirst);
        let off = failed("LoRA is not enabled. Please set `--enable-lora` to enable LoRA.");
        assert_eq!(sglang.read_load(400, off.as_bytes()), Verdict::Failed(Reason::Disabled));
        let none = failed("LoRA with name a does not exist. Loaded LoRAs: dict_keys([])");
        assert_eq!(sglang.read_unload(400, none.as_bytes()), Verdict::AlreadySo);
    }

    #[test]
    fn the_servers_words_are_one_bounded_line() {
        assert_eq!(
            words(recorded!("load-again.body")),
            "The lora adapter 'lora-1' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True."
        );
        assert!(!words(recorded!("load-no-path.body")).contains('\n'));
        assert!(words(&[b'x'; 10_000]).len() <= MAX_WORDS_CHARS);
    }
}
