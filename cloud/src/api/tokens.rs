//! Who has tokens for this API, when each was used last, and an end to one that is in wrong hands.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use fivefold_keep::registry::RegistryError;
use serde::Serialize;
use utoipa::ToSchema;

use super::gate::Asker;
use super::{Answer, Problem, ask};
use crate::clock;
use crate::service::Service;

/// A token, without what opens anything. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenShown {
    /// Its name.
    name: String,
    /// What it is for: `read`, `audit`, `operate` or `admin`.
    scope: &'static str,
    /// When it was made.
    made: u64,
    /// From when on it is refused; tokens of before there were ends have none.
    ends: Option<u64>,
    /// When it was used last, to the minute; none if it was never.
    used: Option<u64>,
    /// From which address that was.
    used_from: Option<String>,
}

/// Tokens that are not revoked, and when each was used last.
#[utoipa::path(get, path = "/v1/tokens", responses(
    (status = 200, body = [TokenShown]), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub(super) async fn tokens(State(service): State<Arc<Service>>) -> Answer<Vec<TokenShown>> {
    ask(&service, |service, reader| {
        let mut uses: HashMap<_, _> = reader.token_uses()?.into_iter().map(|u| (u.hash, u)).collect();
        let book = service.cloud.book();
        let shown = book.tokens.iter().map(|token| {
            let used = uses.remove(&token.hash);
            TokenShown {
                name: token.name.clone(),
                scope: token.scope.as_str(),
                made: token.created_at,
                ends: token.ends_at,
                used: used.as_ref().map(|u| u.at.0 / 1000),
                used_from: used.map(|u| u.place),
            }
        });
        Ok(Json(shown.collect()))
    })
    .await
}

/// Revokes a token: it is refused from now on, and what it follows ends.
#[utoipa::path(post, path = "/v1/tokens/{name}/revoke", params(("name" = String, Path, description = "its name")),
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn revoke(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let failed =
        |why: String| Problem::failed("registry", "the operator's book cannot be written now; try again later", why);
    let revoked = tokio::task::spawn_blocking(move || {
        let now = clock::now();
        service.open_registry(asker.by(now))?.revoke_token(&name, now.0 / 1000)?;
        Ok::<_, RegistryError>(service.refresh(now))
    });
    match revoked.await.map_err(|e| failed(e.to_string()))? {
        // What could not be read again now is with the next look, within a second.
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(RegistryError::Unknown { .. }) => {
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown-token", "no such token; see /v1/tokens"))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
