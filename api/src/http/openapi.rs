//! The OpenAPI document, and a page to browse it that needs nothing from elsewhere.

use axum::{Router, http::header, routing::get};
use utoipa::{
    OpenApi,
    openapi::{
        Content, OpenApi as Description, Ref, RefOr, Response, ResponseBuilder, Schema, Type,
        path::{Operation, Parameter},
        schema::SchemaType,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    Http as State,
    problem::{Document, MEDIA_TYPE},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Shardmeter API",
        description = "Live shards, incident history, guild settings and live events of a sharded Discord bot. Times are \
            RFC 3339; Discord's ids are strings. Every refusal is a problem document (RFC 9457)."
    ),
    tags(
        (name = "shards", description = "Who reports, and what happened"),
        (name = "guilds", description = "Where a guild is served, and what it wants"),
        (name = "commands", description = "What is used"),
        (name = "events", description = "What happens, as it happens"),
        (name = "health", description = "For those who run it"),
    ),
    components(schemas(Document))
)]
struct Api;

/// The document without routes.
pub(super) fn description() -> Description {
    Api::openapi()
}

/// Where the document is, and the page.
pub(super) fn pages(mut document: Description) -> Router<State> {
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.put].into_iter().flatten() {
            no_nulls(operation);
            add_answers(operation, &OF_ALL);
            if !is_for_anybody(operation) {
                add_answers(operation, &OF_THOSE_WITH_TOKENS);
                let either = SCHEMES.map(|(name, _)| SecurityRequirement::new(name, NO_SCOPES));
                operation.security = Some(either.into());
            }
        }
    }
    let components = document.components.get_or_insert_default();
    for (name, scheme) in SCHEMES {
        components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
    }
    // Made of texts alone: this cannot fail.
    let document = document.to_json().unwrap_or_default();
    // Else it would show the document, and this host's name, to a service on the internet.
    let page = SwaggerUi::new("/docs").config(Config::from("/openapi.json").validator_url("none"));
    Router::new()
        .route(
            "/openapi.json",
            get(async move || ([(header::CONTENT_TYPE, "application/json")], document.clone())),
        )
        .merge(Router::from(page))
}

/// What is optional may be left out; utoipa says that it may be null too, which in a path, a query or a header is a text.
fn no_nulls(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(Parameter { schema: Some(schema), .. }) = parameter {
            no_null(schema);
        }
    }
}

fn no_null(schema: &mut RefOr<Schema>) {
    let is_null = |schema: &RefOr<Schema>| matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null));
    match schema {
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(types) = &mut object.schema_type {
                types.retain(|kind| *kind != Type::Null);
            }
        }
        RefOr::T(Schema::OneOf(one_of)) => {
            one_of.items.retain(|item| !is_null(item));
            if let [_] = one_of.items.as_slice()
                && let Some(only) = one_of.items.pop()
            {
                *schema = only;
            }
        }
        _ => {}
    }
}

/// What any route may answer.
const OF_ALL: [(&str, &str); 3] = [
    ("400", "The request is not valid"),
    ("500", "A mistake of ours; the log has more"),
    ("503", "The database or the manager is away, or the answer took too long"),
];

/// What one may answer that is not for anybody.
const OF_THOSE_WITH_TOKENS: [(&str, &str); 3] = [
    ("401", "A token is needed, and none came or none that is valid"),
    (
        "403",
        "The token of another role came, or nobody may do this here: a web page of another machine, say",
    ),
    ("429", "This address asks too often; Retry-After says when it may again"),
];

/// How to say who one is: `Authorization: Bearer TOKEN`, or Basic with the token as password.
const SCHEMES: [(&str, HttpAuthScheme); 2] =
    [("bearer", HttpAuthScheme::Bearer), ("basic", HttpAuthScheme::Basic)];

const NO_SCOPES: [&str; 0] = [];

fn is_for_anybody(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| tag == "health")
}

fn add_answers(operation: &mut Operation, answers: &[(&str, &str)]) {
    for (status, description) in answers {
        let answer = || RefOr::T(problem(description));
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(answer);
    }
}

fn problem(description: &str) -> Response {
    let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    ResponseBuilder::new().description(description).content(MEDIA_TYPE, content).build()
}
