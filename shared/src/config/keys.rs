//! The function's own keys, and where they are: in the environment, or in secrets that it names.

use aws_credential_types::Credentials;
use jsonwebtoken::dangerous::insecure_decode;
use reqwest::Url;
use serde::Deserialize;

use super::{ConfigError, NOT_SET, base_url, header_text, refuse, required, trimmed};
use crate::secret::Secret;

const WPP_SECRET: &str = "WPP_SECRET";
const SERVICE_KEY: &str = "SUPABASE_SERVICE_ROLE_KEY";
const JWT_SECRET: &str = "SUPABASE_JWT_SECRET";

/// Which variables name the secrets that these are kept in.
const WPP_SECRET_ARN: &str = "WPP_SECRET_ARN";
const SUPABASE_SECRET_ARN: &str = "SUPABASE_SECRET_ARN";

const NOT_AN_ARN: &str = "is not the ARN of a secret in Secrets Manager";

/// What the function shows the platform and the project, and tells users of the legacy kind by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// `WPP_SECRET`: what the platform asks for before it makes a client. For `wpp-create` alone.
    pub wpp_secret: Option<Secret>,
    /// `SUPABASE_SERVICE_ROLE_KEY`: the right to every row.
    pub service_key: ServiceKey,
    /// `SUPABASE_JWT_SECRET`: for user tokens of the legacy kind.
    pub jwt_secret: Option<Secret>,
}

impl Keys {
    /// These, in the place of the ones before; not where one is missing that was there. Whoever puts a secret puts all of its
    /// text, and a key that was left out by mistake would lock people out.
    pub(crate) fn replacing(self, before: Option<&Self>) -> Result<Self, (&'static str, ConfigError)> {
        match before {
            Some(before) if before.jwt_secret.is_some() && self.jwt_secret.is_none() => {
                let problem = "was there before and is missing";
                Err((SUPABASE_SECRET_ARN, ConfigError { variable: JWT_SECRET, problem }))
            }
            _ => Ok(self),
        }
    }
}

/// Where the keys are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// In the environment, all of them.
    Given(Keys),
    /// In Secrets Manager, those that the environment does not give.
    Kept(KeptKeys),
}

/// Keys of which Secrets Manager keeps some.
#[derive(Clone, Debug)]
pub struct KeptKeys {
    /// One or two, to be read anew as long as the function runs.
    pub(crate) secrets: Vec<KeptSecret>,
    /// Who reads them.
    pub(crate) credentials: Credentials,
    given: SomeKeys,
    needs: Needs,
}

/// A secret in Secrets Manager.
#[derive(Clone, Debug)]
pub(crate) struct KeptSecret {
    /// The variable that names it.
    pub(crate) variable: &'static str,
    pub(crate) arn: String,
    pub(crate) region: String,
    /// Where Secrets Manager is asked for it.
    pub(crate) endpoint: Url,
}

/// Those keys that one place has.
#[derive(Clone, Debug, Default)]
pub(crate) struct SomeKeys {
    wpp_secret: Option<Secret>,
    service_key: Option<ServiceKey>,
    jwt_secret: Option<Secret>,
}

/// Which keys a function cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// `SUPABASE_SERVICE_ROLE_KEY`, as every function.
    ServiceKey,
    /// And `WPP_SECRET`, which a client is made with.
    WppSecretToo,
}

impl KeySource {
    pub(super) fn read(get: impl Fn(&str) -> Option<String>, needs: Needs) -> Result<Self, ConfigError> {
        let given = SomeKeys::read(&get)?;
        let lacks_service_key = given.service_key.is_none();
        let mut secrets = Vec::new();
        if needs == Needs::WppSecretToo && given.wpp_secret.is_none() {
            let arn = get(WPP_SECRET_ARN).ok_or(ConfigError { variable: WPP_SECRET, problem: NOT_SET })?;
            secrets.push(KeptSecret::read(WPP_SECRET_ARN, arn, &get)?);
        }
        match get(SUPABASE_SECRET_ARN) {
            Some(arn) if lacks_service_key || given.jwt_secret.is_none() => {
                secrets.push(KeptSecret::read(SUPABASE_SECRET_ARN, arn, &get)?);
            }
            None if lacks_service_key => return refuse(SERVICE_KEY, NOT_SET),
            _ => {}
        }
        if secrets.is_empty() {
            return given.complete(needs).map(Self::Given).map_err(|(_, missing)| missing);
        }
        Ok(Self::Kept(KeptKeys { secrets, credentials: credentials(&get)?, given, needs }))
    }
}

impl KeptKeys {
    /// All of them, with what the secrets hold. What the environment gives wins.
    pub(crate) fn complete(
        &self,
        kept: impl IntoIterator<Item = SomeKeys>,
    ) -> Result<Keys, (&'static str, ConfigError)> {
        kept.into_iter().fold(self.given.clone(), SomeKeys::or).complete(self.needs)
    }
}

impl SomeKeys {
    /// From any source of texts by these names.
    pub(crate) fn read(source: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let get = |name| trimmed(source(name));
        Ok(Self {
            wpp_secret: get(WPP_SECRET).map(|value| header_text(WPP_SECRET, value)).transpose()?,
            service_key: get(SERVICE_KEY).map(ServiceKey::parse).transpose()?,
            jwt_secret: get(JWT_SECRET).map(Secret::new),
        })
    }

    fn or(self, other: Self) -> Self {
        Self {
            wpp_secret: self.wpp_secret.or(other.wpp_secret),
            service_key: self.service_key.or(other.service_key),
            jwt_secret: self.jwt_secret.or(other.jwt_secret),
        }
    }

    /// Where something is missing, which variable's secret should have it.
    fn complete(self, needs: Needs) -> Result<Keys, (&'static str, ConfigError)> {
        let missing = |variable, key| Err((variable, ConfigError { variable: key, problem: NOT_SET }));
        if needs == Needs::WppSecretToo && self.wpp_secret.is_none() {
            return missing(WPP_SECRET_ARN, WPP_SECRET);
        }
        let Some(service_key) = self.service_key else { return missing(SUPABASE_SECRET_ARN, SERVICE_KEY) };
        Ok(Keys { wpp_secret: self.wpp_secret, service_key, jwt_secret: self.jwt_secret })
    }
}

impl KeptSecret {
    fn read(
        variable: &'static str,
        arn: String,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let parts: Vec<_> = arn.splitn(7, ':').collect();
        let ["arn", partition, "secretsmanager", region, _, "secret", name] = parts[..] else {
            return refuse(variable, NOT_AN_ARN);
        };
        let region = match region {
            "" => required("AWS_REGION", &get)?,
            region => region.to_owned(),
        };
        let is_region = region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_region || name.is_empty() {
            return refuse(variable, NOT_AN_ARN);
        }
        let endpoint = ["AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"]
            .into_iter()
            .find_map(|variable| Some((variable, get(variable)?)));
        let endpoint = match endpoint {
            Some((variable, url)) => base_url(variable, url)?,
            None => base_url(variable, format!("https://secretsmanager.{region}.{}", domain(partition)))?,
        };
        Ok(Self { variable, region, endpoint, arn })
    }
}

/// Where a partition's services are.
fn domain(partition: &str) -> &'static str {
    match partition {
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}

/// What Lambda gives every function to sign its calls with.
fn credentials(get: impl Fn(&str) -> Option<String>) -> Result<Credentials, ConfigError> {
    let text = |variable| required(variable, &get).and_then(|value| header_text(variable, value));
    let (id, secret) = (text("AWS_ACCESS_KEY_ID")?, text("AWS_SECRET_ACCESS_KEY")?);
    let token = get("AWS_SESSION_TOKEN").map(|value| header_text("AWS_SESSION_TOKEN", value)).transpose()?;
    let token = token.map(|token| token.expose().to_owned());
    Ok(Credentials::new(id.expose(), secret.expose(), token, None, "environment"))
}

/// The key of the service role, of either generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKey {
    /// A JWT: goes into `apikey` and `Authorization`.
    Legacy(Secret),
    /// `sb_secret_...`: goes into `apikey` alone; as a bearer it would be refused for not being a JWT.
    New(Secret),
}

impl ServiceKey {
    fn parse(value: String) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        struct Claims {
            role: Option<String>,
        }
        let key = header_text(SERVICE_KEY, value)?;
        let text = key.expose();
        if text.starts_with("sb_secret_") {
            return Ok(Self::New(key));
        }
        if text.starts_with("sb_publishable_") {
            return refuse(SERVICE_KEY, "is a publishable key; the service role's is needed");
        }
        match insecure_decode::<Claims>(text).map(|token| token.claims.role) {
            Ok(Some(role)) if role == "service_role" => Ok(Self::Legacy(key)),
            Ok(_) => refuse(SERVICE_KEY, "is a key of another role than service_role"),
            Err(_) => refuse(SERVICE_KEY, "is neither a JWT nor an sb_secret_ key"),
        }
    }

    /// The key itself, for `apikey`.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Legacy(key) | Self::New(key) => key,
        }
    }

    /// The key as a bearer, where it can be one.
    pub fn bearer(&self) -> Option<&Secret> {
        match self {
            Self::Legacy(key) => Some(key),
            Self::New(_) => None,
        }
    }
}
