//! Which API a request speaks, by the end of its path.
//!
//! In: a path as the client sent it. Out: an [`Api`]. It never looks at a body.

/// The API of a request. The name is the value of the `api` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI completions.
    Completions,
    /// OpenAI embeddings; their answers have input tokens only.
    Embeddings,
    /// Anthropic messages.
    Messages,
    /// The native generate calls of vLLM, SGLang and llama.cpp.
    Generate,
    /// OpenAI responses.
    Responses,
    /// A JSON POST whose path is not known; measured only if the configuration asks for it.
    Other,
}

impl Api {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Chat, Self::Completions, Self::Embeddings, Self::Messages, Self::Generate, Self::Responses, Self::Other];

    /// Value of the `api` label, and the name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::Generate => "generate",
            Self::Responses => "responses",
            Self::Other => "other",
        }
    }

    /// The API of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|api| api.name() == name)
    }

    /// The API of a path; its query does not matter. `None`: not known.
    #[must_use]
    pub fn of_path(path: &[u8]) -> Option<Self> {
        let path = without_query(path);
        SUFFIXES.iter().find(|(suffix, _)| path.ends_with(suffix.as_bytes())).map(|(_, api)| *api)
    }

    /// Whether its answers count output tokens.
    #[must_use]
    pub const fn has_output(self) -> bool {
        !matches!(self, Self::Embeddings)
    }
}

/// A path up to its query.
#[must_use]
pub fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// Longer endings first where one ends in another.
const SUFFIXES: &[(&str, Api)] = &[
    ("/chat/completions", Api::Chat),
    ("/completions", Api::Completions),
    ("/completion", Api::Generate),
    ("/embeddings", Api::Embeddings),
    ("/messages", Api::Messages),
    ("/responses", Api::Responses),
    ("/generate", Api::Generate),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_by_its_end_whatever_stands_before_and_in_the_query() {
        for (path, api) in [
            ("/v1/chat/completions", Some(Api::Chat)),
            ("/tenant/a/v1/chat/completions?x=/v1/embeddings", Some(Api::Chat)),
            ("/v1/completions", Some(Api::Completions)),
            ("/completion", Some(Api::Generate)),
            ("/inference/v1/generate", Some(Api::Generate)),
            ("/v1/messages", Some(Api::Messages)),
            ("/v1/messages/count_tokens", None),
            ("/v1/models", None),
            ("", None),
        ] {
            assert_eq!(Api::of_path(path.as_bytes()), api, "{path}");
        }
    }
}
