//! The keys of a Supabase project, old and new: the function's own, and those that verify its callers.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use local::events::Event;
use local::gate::Fault;
use local::lambda::{Sandbox, binary};
use local::stage::environment;
use local::users::Signing;
use local::world::World;
use serde_json::json;

const SERVICE_KEY: &str = "SUPABASE_SERVICE_ROLE_KEY";

async fn function(world: &World, more: &[(&str, &str)]) -> Sandbox {
    Sandbox::start(&binary("wpp-status").unwrap(), &environment(world, more)).await.unwrap()
}

#[tokio::test]
async fn a_service_key_of_either_generation_opens_the_database() {
    let world = World::start().await.unwrap();
    let school = world.organisation("school").await.unwrap();
    let event = Event::post("wpp-status").bearer(&school.token).json(&json!({})).v2();
    for key in [world.keys.service_role_key(), world.keys.secret_key().to_owned()] {
        let function = function(&world, &[(SERVICE_KEY, &key)]).await;
        let answer = function.invoke(event.clone()).await.answered().unwrap();
        assert_eq!((answer.status, &answer.json["status"]), (200, &json!("disconnected")), "{answer:?}");
    }
}

#[tokio::test]
async fn a_key_that_the_project_does_not_know_is_our_trouble_and_not_the_callers() {
    let world = World::start().await.unwrap();
    let school = world.organisation("school").await.unwrap();
    let function = function(&world, &[(SERVICE_KEY, "sb_secret_of_another_project")]).await;
    let event = Event::post("wpp-status").bearer(&school.token).json(&json!({})).v2();
    let answer = function.invoke(event).await.answered().unwrap();
    assert_eq!((answer.status, &answer.json["code"]), (500, &json!("database_key_rejected")), "{answer:?}");
}

#[tokio::test]
async fn users_of_a_project_with_signing_keys_need_no_shared_secret() {
    let world = World::start().await.unwrap();
    let school = world.organisation("school").await.unwrap();
    let claims = |expires_s: i64| {
        json!({"iss": format!("{}/auth/v1", world.supabase.url()), "aud": "authenticated",
            "role": "authenticated", "sub": school.user, "exp": local::clock::unix_ms() / 1000 + expires_s})
    };
    let function = function(&world, &[("SUPABASE_JWT_SECRET", "")]).await;
    let status = async |token: &str| {
        let event = Event::post("wpp-status").bearer(token).json(&json!({})).v2();
        function.invoke(event).await.answered().unwrap()
    };
    let good = world.keys.token(&claims(3600), Signing::Es256);
    assert_eq!(status(&good).await.status, 200);
    for (refused, code) in [
        (world.keys.token(&claims(-60), Signing::Es256), "session_expired"),
        (world.keys.token(&claims(3600), Signing::None), "unauthorized"),
        (school.token.clone(), "unauthorized"),
        (world.keys.service_role_key(), "unauthorized"),
        (world.keys.anon_key(), "unauthorized"),
        (world.keys.secret_key().to_owned(), "unauthorized"),
    ] {
        let answer = status(&refused).await;
        assert_eq!((answer.status, &answer.json["code"]), (401, &json!(code)), "{refused}: {answer:?}");
    }
    // The set is kept: no call for a known key, nor for one that is made up again and again.
    assert_eq!(world.supabase.gate.count("jwks"), 1);
    world.supabase.gate.inject("jwks", Fault::Drop);
    assert_eq!(status(&good).await.status, 200);
}

#[tokio::test]
async fn a_project_whose_keys_cannot_be_had_is_no_fault_of_the_token() {
    let world = World::start().await.unwrap();
    let school = world.organisation("school").await.unwrap();
    let token = world.keys.token(&json!({"sub": school.user}), Signing::Es256);
    let function = function(&world, &[]).await;
    world.supabase.gate.inject("jwks", Fault::status(500));
    let event = Event::post("wpp-status").bearer(&token).json(&json!({})).v2();
    let answer = function.invoke(event).await.answered().unwrap();
    assert_eq!((answer.status, &answer.json["code"]), (503, &json!("auth_unavailable")), "{answer:?}");
    assert_eq!(answer.json["retryable"], true);
}

#[tokio::test]
async fn a_browsers_key_is_refused_at_the_start() {
    let world = World::start().await.unwrap();
    for (key, problem) in [
        (world.keys.anon_key(), "is a key of another role than service_role"),
        (world.keys.publishable_key().to_owned(), "is a publishable key; the service role's is needed"),
    ] {
        let exit = function(&world, &[(SERVICE_KEY, &key)]).await.exit().await;
        let lines: Vec<_> = exit.logs.trim().lines().collect();
        assert_eq!((exit.code, lines.len()), (Some(1), 1), "{exit:?}");
        assert!(lines[0].contains(&format!("{SERVICE_KEY} {problem}")), "{exit:?}");
        assert!(!exit.logs.contains(&key), "{exit:?}");
    }
}
