//! Messages quote what a sender sent, which may be megabytes that nobody reads and HTTP/2 headers do not carry.

/// Longest message to a sender or the log, bytes.
const MAX_MESSAGE_BYTES: usize = 1_000;

/// The message, cut with an ellipsis if it is too long.
pub(crate) fn clip(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push('…');
    }
    message
}
