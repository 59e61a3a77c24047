//! What the filter wants of a request's and of an answer's JSON: which keys, where.
//!
//! In: keys on the way from the top. Out: nodes. One tree serves the answers of all APIs, since their names do not
//! clash; what a field means in which API is `usage.rs`'s. It never sees a value.

use crate::json::Schema;

/// Wanted positions in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestNode {
    /// The top object.
    Top,
    /// `model`.
    Model,
    /// `prompt` of the completions API: several prompts have their tokens added up.
    Prompt,
    /// One element of a prompt list.
    PromptItem,
}

/// See the file's head.
#[derive(Debug)]
pub struct RequestSchema;

impl Schema for RequestSchema {
    type Node = RequestNode;

    fn root() -> RequestNode {
        RequestNode::Top
    }

    fn key(node: RequestNode, key: &[u8]) -> Option<RequestNode> {
        match (node, key) {
            (RequestNode::Top, b"model") => Some(RequestNode::Model),
            (RequestNode::Top, b"prompt") => Some(RequestNode::Prompt),
            _ => None,
        }
    }

    fn element(node: RequestNode) -> Option<RequestNode> {
        (node == RequestNode::Prompt).then_some(RequestNode::PromptItem)
    }
}

/// A number that a server counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Tokens of the prompt.
    Input,
    /// Generated tokens.
    Output,
    /// Prompt tokens out of the prefix cache, a part of [`Self::Input`].
    Cached,
    /// The same where the API counts them beside the input (Anthropic).
    CacheRead,
    /// Prompt tokens written to the cache, a part of [`Self::Input`].
    CacheWrite,
    /// The same where the API counts them beside the input (Anthropic).
    CacheCreation,
    /// Reasoning tokens, a part of [`Self::Output`].
    Reasoning,
    /// Audio tokens of the prompt.
    AudioInput,
    /// Generated audio tokens.
    AudioOutput,
    /// llama.cpp's own count of prompt tokens that were not cached.
    TimedInput,
    /// llama.cpp's own count of cached prompt tokens.
    TimedCached,
    /// llama.cpp's own count of generated tokens.
    TimedOutput,
}

impl Field {
    /// How many there are.
    pub const COUNT: usize = 12;
}

/// Wanted positions in an answer, or in the data of one event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerNode {
    /// The top object; also each object of a top array.
    Top,
    /// `model`.
    Model,
    /// `type`, which names the event.
    Type,
    /// `response` of the responses API, `message` of the messages API: usage and model of the whole answer.
    Whole,
    /// `usage`, or SGLang's `meta_info`.
    Usage,
    /// `timings` of llama.cpp.
    Timings,
    /// Details of the input tokens.
    InputDetails,
    /// Details of the output tokens.
    OutputDetails,
    /// A count.
    Count(Field),
    /// `choices`.
    Choices,
    /// One of them.
    Choice,
    /// `delta` of a choice.
    Delta,
    /// `delta` at the top: an object (messages) or a text (responses).
    TopDelta,
    /// Generated text.
    Text,
    /// Generated calls or audio: objects.
    Call,
    /// `error`.
    Error,
}

/// See the file's head.
#[derive(Debug)]
pub struct AnswerSchema;

impl Schema for AnswerSchema {
    type Node = AnswerNode;

    fn root() -> AnswerNode {
        AnswerNode::Top
    }

    fn key(node: AnswerNode, key: &[u8]) -> Option<AnswerNode> {
        match node {
            AnswerNode::Top => top(key),
            AnswerNode::Whole => match key {
                b"usage" => Some(AnswerNode::Usage),
                b"model" => Some(AnswerNode::Model),
                b"error" => Some(AnswerNode::Error),
                _ => None,
            },
            AnswerNode::Usage => usage(key),
            AnswerNode::InputDetails => match key {
                b"cached_tokens" => Some(AnswerNode::Count(Field::Cached)),
                b"audio_tokens" => Some(AnswerNode::Count(Field::AudioInput)),
                b"created_cache_tokens" | b"cache_write_tokens" => Some(AnswerNode::Count(Field::CacheWrite)),
                _ => None,
            },
            AnswerNode::OutputDetails => match key {
                b"reasoning_tokens" => Some(AnswerNode::Count(Field::Reasoning)),
                b"audio_tokens" => Some(AnswerNode::Count(Field::AudioOutput)),
                _ => None,
            },
            AnswerNode::Timings => match key {
                b"prompt_n" => Some(AnswerNode::Count(Field::TimedInput)),
                b"predicted_n" => Some(AnswerNode::Count(Field::TimedOutput)),
                b"cache_n" => Some(AnswerNode::Count(Field::TimedCached)),
                _ => None,
            },
            AnswerNode::Choice => match key {
                b"delta" => Some(AnswerNode::Delta),
                b"text" => Some(AnswerNode::Text),
                _ => None,
            },
            AnswerNode::Delta => match key {
                b"content" | b"reasoning_content" | b"reasoning" | b"refusal" => Some(AnswerNode::Text),
                b"tool_calls" | b"function_call" | b"audio" => Some(AnswerNode::Call),
                _ => None,
            },
            AnswerNode::TopDelta => match key {
                b"text" | b"thinking" | b"partial_json" => Some(AnswerNode::Text),
                _ => None,
            },
            _ => None,
        }
    }

    fn element(node: AnswerNode) -> Option<AnswerNode> {
        match node {
            AnswerNode::Top => Some(AnswerNode::Top),
            AnswerNode::Choices => Some(AnswerNode::Choice),
            AnswerNode::Call => Some(AnswerNode::Call),
            _ => None,
        }
    }
}

fn top(key: &[u8]) -> Option<AnswerNode> {
    Some(match key {
        b"model" => AnswerNode::Model,
        b"usage" | b"meta_info" => AnswerNode::Usage,
        b"choices" => AnswerNode::Choices,
        b"type" => AnswerNode::Type,
        b"delta" => AnswerNode::TopDelta,
        b"message" | b"response" => AnswerNode::Whole,
        b"error" => AnswerNode::Error,
        b"timings" => AnswerNode::Timings,
        // The native APIs of llama.cpp and SGLang.
        b"content" | b"text" => AnswerNode::Text,
        b"tokens_evaluated" => AnswerNode::Count(Field::Input),
        b"tokens_predicted" => AnswerNode::Count(Field::Output),
        _ => return None,
    })
}

fn usage(key: &[u8]) -> Option<AnswerNode> {
    Some(match key {
        b"prompt_tokens" | b"input_tokens" => AnswerNode::Count(Field::Input),
        b"completion_tokens" | b"output_tokens" => AnswerNode::Count(Field::Output),
        b"prompt_tokens_details" | b"input_tokens_details" => AnswerNode::InputDetails,
        b"completion_tokens_details" | b"output_tokens_details" => AnswerNode::OutputDetails,
        b"cache_read_input_tokens" => AnswerNode::Count(Field::CacheRead),
        b"cache_creation_input_tokens" => AnswerNode::Count(Field::CacheCreation),
        b"cached_tokens" | b"prompt_cache_hit_tokens" => AnswerNode::Count(Field::Cached),
        b"cache_write_tokens" => AnswerNode::Count(Field::CacheWrite),
        _ => return None,
    })
}
