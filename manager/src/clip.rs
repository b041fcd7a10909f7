//! Messages quote what a sender sent, which may be megabytes that nobody reads and HTTP/2 headers do not carry.

/// Longest message to a sender or the log, bytes.
const MAX_MESSAGE_BYTES: usize = 1_000;

/// The message, cut with an ellipsis if it is too long.
pub(crate) fn clip(message: String) -> String {
    clip_to(MAX_MESSAGE_BYTES, message)
}

/// The same, at so many bytes.
pub(crate) fn clip_to(longest: usize, mut message: String) -> String {
    if message.len() > longest {
        message.truncate(message.floor_char_boundary(longest));
        message.push('…');
    }
    message
}
