//! A model of a number's row and its lease, as `wpp_claim_refresh`, `wpp_save_token` and `wpp_release_refresh` use them. It has no
//! clock: the walk ends explicitly what expires in the database. The walk runs on this model, and a property test in `local`
//! compares it with the SQL.

/// A number's row in the database. API keys are small numbers here. Tokens and holders are, too, unless noted otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row<Holder = u8, Token = u8> {
    pub key: u8,
    pub token: Option<Token>,
    pub lease: Option<Lease<Holder, Token>>,
}

/// The row of `wpp_token_leases`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease<Holder = u8, Token = u8> {
    pub holder: Holder,
    /// Whether `held_until` is in the future.
    pub held: bool,
    /// `failure`, while `retry_at` is in the future.
    pub cooldown: Option<&'static str>,
    /// The key behind `key_digest`.
    pub key: u8,
    /// The token behind `token_digest`, while `saved_at` is less than a minute ago.
    pub saved: Option<Token>,
}

/// The outcome of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    Granted,
    Changed,
    Busy,
    Cooldown(&'static str),
}

impl<Holder: Copy + PartialEq, Token: Copy + PartialEq> Row<Holder, Token> {
    pub fn claim(&mut self, holder: Holder, replaces: Option<Token>, is_rejected: bool) -> Claimed {
        if self.token != replaces {
            return Claimed::Changed;
        }
        let key = self.key;
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.holder != holder && lease.key == key) {
            if lease.held {
                return Claimed::Busy;
            }
            if is_rejected && replaces.is_some() && lease.saved == replaces {
                (lease.cooldown, lease.saved) = (Some("token_rejected"), None);
            }
            if let Some(failure) = lease.cooldown {
                return Claimed::Cooldown(failure);
            }
        }
        self.lease = Some(Lease { holder, held: true, cooldown: None, key, saved: None });
        Claimed::Granted
    }

    /// Whether the row holds `token` now.
    pub fn save(&mut self, holder: Holder, key: u8, replaces: Option<Token>, token: Token) -> bool {
        let holds = self.lease.as_ref().is_some_and(|lease| lease.holder == holder);
        let saved = self.token == Some(token) || holds && self.key == key && self.token == replaces;
        if saved {
            self.token = Some(token);
        }
        self.release(holder, None, saved.then_some(token));
        saved
    }

    /// Whether the API key or the holder has changed since the claim.
    pub fn fail(&mut self, holder: Holder, failure: Option<&'static str>) -> bool {
        self.release(holder, failure, None);
        !self.lease.as_ref().is_some_and(|lease| lease.holder == holder && lease.key == self.key)
    }

    fn release(&mut self, holder: Holder, failure: Option<&'static str>, saved: Option<Token>) {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.holder == holder) {
            lease.held = false;
            lease.cooldown = failure;
            lease.saved = saved;
        }
    }

    /// Does what `force_recreate` does: a new API key, and no token yet.
    pub fn recreate(&mut self) {
        self.key += 1;
        self.token = None;
    }
}
