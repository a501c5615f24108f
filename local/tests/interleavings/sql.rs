//! Compares the model of the exhaustive walk in `shared` with the SQL: the same messages must have the same effects.

use local::stack::Stack;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::model::{Claimed, Lease, Row};
use crate::replayable;

/// Longer than a case takes, and within the limit for leases, so that no lease expires during a case.
const LONG_MS: i32 = 59_000;

#[derive(Clone, Debug)]
enum Move {
    Claim { holder: u8, replaced: Token, rejected: bool },
    Save { holder: u8, old_key: bool, replaced: Token, token: u8 },
    Fail { holder: u8, dead: bool, cools: bool },
    LeaseEnds,
    PauseEnds,
    TokenAges,
    SiblingSavesToken(u8),
    SiblingWrites,
    Recreate,
}

/// A token, as the caller knows it.
#[derive(Clone, Copy, Debug)]
enum Token {
    OfTheRow,
    None,
    Other(u8),
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![4 => Just(Token::OfTheRow), 1 => Just(Token::None), 1 => (0..4_u8).prop_map(Token::Other)]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let claim = (0..3_u8, token(), any::<bool>());
    let save = (0..3_u8, prop::bool::weighted(0.2), token(), 0..4_u8);
    let one = prop_oneof![
        6 => claim.prop_map(|(holder, replaced, rejected)| Move::Claim { holder, replaced, rejected }),
        6 => save.prop_map(|(holder, old_key, replaced, token)| Move::Save { holder, old_key, replaced, token }),
        2 => (0..3_u8, any::<bool>(), any::<bool>())
            .prop_map(|(holder, dead, cools)| Move::Fail { holder, dead, cools }),
        2 => Just(Move::LeaseEnds),
        1 => Just(Move::PauseEnds),
        1 => Just(Move::TokenAges),
        1 => (0..4_u8).prop_map(Move::SiblingSavesToken),
        1 => Just(Move::SiblingWrites),
        1 => Just(Move::Recreate),
    ];
    prop::collection::vec(one, 1..40)
}

/// One number in the database, its model, and what others wrote into its settings.
struct Game<'a> {
    sql: &'a tokio_postgres::Client,
    organization: Uuid,
    id: Uuid,
    row: Row,
    written: u32,
}

fn text(token: Option<u8>) -> Option<String> {
    token.map(|token| format!("token{token}"))
}

fn holder(holder: u8) -> Uuid {
    Uuid::from_u128(holder.into())
}

impl Game<'_> {
    fn known(&self, token: Token) -> Option<u8> {
        match token {
            Token::OfTheRow => self.row.token,
            Token::None => None,
            Token::Other(token) => Some(token),
        }
    }

    /// Makes a move in the database and in the model, which must give the same answer.
    async fn play(&mut self, one: &Move) {
        match *one {
            Move::Claim { holder: who, replaced, rejected } => {
                let replaced = self.known(replaced);
                let claim = "select wpp_claim_refresh($1, $2, $3, $4, $5, $6)";
                let ids = (&self.organization, &self.id, &holder(who));
                let answer =
                    self.call(claim, &[ids.0, ids.1, ids.2, &LONG_MS, &text(replaced), &rejected]).await;
                let expected = match self.row.claim(who, replaced, rejected) {
                    Claimed::Granted => json!(["granted", null]),
                    Claimed::Changed => json!(["changed", null]),
                    Claimed::Busy => json!(["busy", null]),
                    Claimed::Cooldown(failure) => json!(["cooldown", failure]),
                };
                assert_eq!(json!([answer["outcome"], answer["failure"]]), expected);
                let has_number = matches!(expected[0].as_str(), Some("granted" | "changed"));
                let settings = if has_number { self.known_settings() } else { Value::Null };
                assert_eq!(answer["number"]["settings"], settings);
            }
            Move::Save { holder: who, old_key, replaced, token } => {
                let replaced = self.known(replaced);
                let key = self.row.key.wrapping_sub(u8::from(old_key));
                let save = "select wpp_save_token($1, $2, $3, $4, $5, 1000, $6)";
                let (who_id, key_text, new) = (holder(who), format!("key{key}"), text(Some(token)));
                let answer = self
                    .call(save, &[&self.organization, &self.id, &who_id, &key_text, &new, &text(replaced)])
                    .await;
                let saved = self.row.save(who, key, replaced, token);
                assert_eq!(answer["outcome"], if saved { "saved" } else { "changed" });
                assert_eq!(answer["number"]["settings"], self.known_settings());
            }
            Move::Fail { holder: who, dead, cools } => {
                let failure = if dead { "api_key_rejected" } else { "platform" };
                let changed = self.row.fail(who, cools.then_some(failure));
                let fail = "select wpp_release_refresh($1, $2, $3, $4, $5)";
                let (ids, cool_ms) =
                    ((&self.organization, &self.id, &holder(who)), if cools { LONG_MS } else { 0 });
                let answer = self.call(fail, &[ids.0, ids.1, ids.2, &failure, &cool_ms]).await;
                assert_eq!(answer["outcome"], if changed { "changed" } else { "saved" });
                let expected = if changed { self.known_settings() } else { Value::Null };
                assert_eq!(answer["number"]["settings"], expected);
            }
            Move::LeaseEnds => {
                self.row.lease.iter_mut().for_each(|lease| lease.held = false);
                self.update("update wpp_token_leases set held_until = now() where integration_id = $1").await;
            }
            Move::PauseEnds => {
                self.row.lease.iter_mut().for_each(|lease| lease.cooldown = None);
                self.update("update wpp_token_leases set retry_at = now() where integration_id = $1").await;
            }
            Move::TokenAges => {
                self.row.lease.iter_mut().for_each(|lease| lease.saved = None);
                let age = "update wpp_token_leases set saved_at = now() - interval '61 seconds' where integration_id = $1";
                self.update(age).await;
            }
            Move::SiblingSavesToken(token) => {
                self.row.token = Some(token);
                self.write().await;
            }
            Move::SiblingWrites => {
                self.written += 1;
                self.write().await;
            }
            Move::Recreate => {
                self.row.recreate();
                self.write().await;
            }
        }
        assert_eq!(self.lease().await, self.row.lease);
        let stored = "select settings from messenger_integrations where id = $1";
        let Json(stored): Json<Value> = self.sql.query_one(stored, &[&self.id]).await.unwrap().get(0);
        assert_eq!(stored, self.settings());
    }

    /// Returns the settings in an answer, reduced to the token's and the API key's fields.
    fn known_settings(&self) -> Value {
        let mut settings = self.settings();
        settings.as_object_mut().unwrap().remove("written");
        settings
    }

    fn settings(&self) -> Value {
        let mut settings = json!({"wppApiKey": format!("key{}", self.row.key), "written": self.written});
        if let Some(token) = text(self.row.token) {
            settings["wppJwtToken"] = json!(token);
            settings["wppJwtExpiresAt"] = json!(1000);
        }
        settings
    }

    async fn write(&self) {
        let write = "update messenger_integrations set settings = $2 where id = $1";
        self.sql.execute(write, &[&self.id, &Json(self.settings())]).await.unwrap();
    }

    async fn update(&self, update: &str) {
        self.sql.execute(update, &[&self.id]).await.unwrap();
    }

    async fn call(&self, query: &str, with: &[&(dyn tokio_postgres::types::ToSql + Sync)]) -> Value {
        let Json(answer) = self.sql.query_one(query, with).await.unwrap().get(0);
        answer
    }

    async fn lease(&self) -> Option<Lease> {
        let lease = "select holder, held_until > now(), retry_at > now(), failure,
            (select min(k) from generate_series(0, 99) k where md5('key' || k) = key_digest),
            (select min(t) from generate_series(0, 9) t where md5('token' || t) = token_digest
                and saved_at > now() - interval '1 minute')
            from wpp_token_leases where integration_id = $1";
        let row = self.sql.query_opt(lease, &[&self.id]).await.unwrap()?;
        let failure: Option<&str> = row.get(3);
        let cooldown = row.get::<_, Option<bool>>(2).unwrap_or(false);
        Some(Lease {
            holder: u8::try_from(row.get::<_, Uuid>(0).as_u128()).unwrap(),
            held: row.get(1),
            cooldown: failure.filter(|_| cooldown).map(|failure| match failure {
                "platform" => "platform",
                "token_rejected" => "token_rejected",
                _ => "api_key_rejected",
            }),
            key: u8::try_from(row.get::<_, i32>(4)).unwrap(),
            saved: row.get::<_, Option<i32>>(5).map(|token| u8::try_from(token).unwrap()),
        })
    }
}

#[test]
fn model_answers_like_the_sql() {
    let runtime = Runtime::new().unwrap();
    let (stack, sql) = runtime.block_on(async {
        let stack = Stack::start().await.unwrap();
        let sql = stack.sql().await.unwrap();
        (stack, sql)
    });
    replayable(64, moves(), |moves| {
        runtime.block_on(async {
            let organization = stack.organization("game").await.unwrap().id;
            let make =
                "insert into messenger_integrations (organization_id, messenger_type, provider, settings)
                values ($1, 'whatsapp', 'wpp', '{\"wppApiKey\": \"key0\", \"written\": 0}') returning id";
            let id = sql.query_one(make, &[&organization]).await.unwrap().get(0);
            let row = Row { key: 0, token: None, lease: None };
            let mut game = Game { sql: &sql, organization, id, row, written: 0 };
            for one in &moves {
                game.play(one).await;
            }
        });
    });
}
