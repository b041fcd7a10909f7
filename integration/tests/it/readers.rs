//! Pages read by programs that are not ours: Prometheus, Python's client and protobuf, zlib of three languages, curl. What
//! shards reported is what each of them must find, in every format and coding.

mod accept;
mod bodies;
mod codings;
mod disguise;
mod exemplars;
mod formats;
mod pages;
mod random;
mod reported;
mod round_trip;
