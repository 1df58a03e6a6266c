//! The description as one HTML page: routes, parameters, schemas, a curl per route.
//!
//! Separate from the description, of which it knows only the document, so it shows nothing else. Holds no script and loads
//! nothing, so that a server without a network shows it whole. Everything that comes from the document is escaped.

mod html;
mod schema;

use html::{Html, slug};
use serde_json::Value;

const STYLE: &str = include_str!("page.css");
/// The methods that a path may have, in the order of the page.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The page of `document`.
#[must_use]
pub fn render(document: &Value) -> String {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width\">\n");
    let title = text(document, "/info/title");
    html.element("title", title).raw("<style>\n").raw(STYLE).raw("</style>\n</head>\n<body>\n");
    header(&mut html, document);
    for tag in list(document, "/tags") {
        let (name, about) = (text(tag, "/name"), text(tag, "/description"));
        html.raw("<h2>").text(name).raw("</h2>\n").paragraphs(about);
        for operation in operations(document).filter(|o| o.tag() == name) {
            article(&mut html, document, &operation);
        }
    }
    html.element("h2", "Schemas");
    for (name, schema) in object(document, "/components/schemas") {
        html.raw(&format!("<article id=\"{}\">\n", slug(name))).element("h3", name);
        html.paragraphs(text(schema, "/description"));
        schema::render(&mut html, schema);
        html.raw("</article>\n");
    }
    html.raw("</body>\n</html>\n");
    html.finish()
}

/// One route of the document.
struct Operation<'a> {
    path: &'a str,
    method: &'a str,
    described: &'a Value,
}

impl<'a> Operation<'a> {
    fn tag(&self) -> &'a str {
        text(self.described, "/tags/0")
    }

    fn id(&self) -> &'a str {
        text(self.described, "/operationId")
    }
}

fn operations(document: &Value) -> impl Iterator<Item = Operation<'_>> {
    object(document, "/paths").flat_map(|(path, item)| {
        let described = |method| item.get(method).map(|described| (method, described));
        METHODS.into_iter().filter_map(described).map(|(method, described)| Operation {
            path,
            method,
            described,
        })
    })
}

fn header(html: &mut Html, document: &Value) {
    html.raw("<h1>").text(text(document, "/info/title")).raw(" <small>");
    html.text(text(document, "/info/version")).raw("</small></h1>\n");
    html.paragraphs(text(document, "/info/summary"))
        .paragraphs(text(document, "/info/description"));
    html.raw("<p>The same as a document: <a href=\"openapi.json\">openapi.json</a>. The commands below want ");
    html.raw("<code>ENDPOINT</code> and <code>KEY</code> in the environment.</p>\n<nav>\n");
    for tag in list(document, "/tags") {
        html.element("h3", text(tag, "/name")).raw("<ul>\n");
        for operation in operations(document).filter(|o| o.tag() == text(tag, "/name")) {
            html.raw(&format!("<li><a href=\"#{}\">", slug(operation.id())));
            signature(html, &operation);
            html.raw("</a></li>\n");
        }
        html.raw("</ul>\n");
    }
    html.raw("</nav>\n");
}

fn signature(html: &mut Html, operation: &Operation<'_>) {
    html.raw("<span class=\"method\">").text(&operation.method.to_uppercase()).raw("</span> ");
    html.element("code", operation.path);
}

fn article(html: &mut Html, document: &Value, operation: &Operation<'_>) {
    html.raw(&format!("<article id=\"{}\">\n<h3>", slug(operation.id())));
    signature(html, operation);
    html.raw("</h3>\n").paragraphs(text(operation.described, "/summary"));
    parameters(html, document, operation);
    for (content_type, media) in object(operation.described, "/requestBody/content") {
        html.raw("<p>Takes <code>").text(content_type).raw("</code>: ");
        schema::shape(html, &media["schema"]);
        html.raw("</p>\n");
    }
    responses(html, document, operation);
    html.raw("<pre>").text(&curl(operation)).raw("</pre>\n</article>\n");
}

fn parameters(html: &mut Html, document: &Value, operation: &Operation<'_>) {
    html.raw("<table>\n<tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>\n");
    for parameter in list(operation.described, "/parameters") {
        let parameter = resolve(document, parameter);
        html.raw("<tr><td>").element("code", text(parameter, "/name"));
        if parameter["required"] == true {
            html.raw(" <span class=\"required\">required</span>");
        }
        html.raw("</td><td>").text(text(parameter, "/in")).raw("</td><td>");
        schema::shape(html, &parameter["schema"]);
        html.raw("</td><td>").paragraphs(text(parameter, "/description")).raw("</td></tr>\n");
    }
    html.raw("</table>\n");
}

fn responses(html: &mut Html, document: &Value, operation: &Operation<'_>) {
    html.raw("<table>\n<tr><th>Answer</th><th>Body</th><th></th></tr>\n");
    for (status, response) in object(operation.described, "/responses") {
        let response = resolve(document, response);
        html.raw("<tr><td>").element("code", status).raw("</td><td>");
        for (content_type, media) in object(response, "/content") {
            html.raw("<code>").text(content_type).raw("</code>: ");
            let event = media.pointer("/schema/properties/data/anyOf/0/contentSchema");
            schema::shape(html, event.unwrap_or(&media["schema"]));
            html.raw("<br>");
        }
        html.raw("</td><td>").paragraphs(text(response, "/description")).raw("</td></tr>\n");
    }
    html.raw("</table>\n");
}

/// A command that calls the route; parameters of the path are variables of the shell.
fn curl(operation: &Operation<'_>) -> String {
    let mut url = format!("$ENDPOINT{}", operation.path.replace('{', "$").replace('}', ""));
    for parameter in list(operation.described, "/parameters") {
        if parameter["in"] == "query" && parameter["required"] == true {
            url.push_str(&format!("?{}={}", text(parameter, "/name"), text(parameter, "/example")));
        }
    }
    let mut command = format!("curl \"{url}\"");
    if operation.described.get("security").is_none() {
        command.push_str(" -H \"api-key: $KEY\"");
    }
    for (content_type, media) in object(operation.described, "/requestBody/content") {
        command.push_str(&format!(
            " \\\n  -H 'content-type: {content_type}' -d '{}'",
            media["example"]
        ));
    }
    match operation.method {
        "get" | "post" => command,
        other => format!("{command} -X {}", other.to_uppercase()),
    }
}

/// What a reference leads to; a value that is none leads to itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = value.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    target.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn object<'a>(
    value: &'a Value,
    pointer: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    let fields = value.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    fields.map(|(name, value)| (name.as_str(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_document_says_cannot_become_markup() {
        let evil = "<script src=\"https://x/y\">&";
        let page = render(&json!({
            "info": {"title": evil, "description": evil},
            "tags": [{"name": evil, "description": evil}],
            "paths": {"/<b>": {"post": {"operationId": "\"><b>", "summary": evil, "tags": [evil],
                "requestBody": {"content": {"<i>": {"schema": {"const": evil}, "example": evil}}}}}},
            "components": {"schemas": {"<u>": {"description": evil, "properties": {"<s>": {"pattern": evil}}}}},
        }));
        for markup in ["<script", "<b>", "<i>", "<u>", "<s>"] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(page.contains("&lt;script src=&quot;"));
    }

    #[test]
    fn a_curl_calls_its_route() {
        let described = json!({
            "parameters": [{"name": "api-version", "in": "query", "required": true, "example": "v"}],
            "requestBody": {"content": {"application/json": {"example": {"a": 1}}}},
        });
        let operation = Operation { path: "/d/{name}/x", method: "patch", described: &described };
        assert_eq!(
            curl(&operation),
            "curl \"$ENDPOINT/d/$name/x?api-version=v\" -H \"api-key: $KEY\" \\\n  \
             -H 'content-type: application/json' -d '{\"a\":1}' -X PATCH"
        );
    }
}
