//! Signatures of tokens, checked by `ring`, which the rest of the process uses for TLS already.
//!
//! The token library has the cryptography as a plug. Its own plugs are a second TLS-grade library built from C, or one whose RSA
//! has a known timing leak; here nothing is signed and only public keys are used. HMAC is not among the algorithms, on purpose:
//! a public key must never serve as a shared secret.

use jsonwebtoken::crypto::{CryptoProvider, JwkUtils, JwtSigner, JwtVerifier};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature as ring;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    jwk_utils: JwkUtils::new_unimplemented(),
};

/// Makes the token library check signatures with `ring`; once for the whole process.
pub(super) fn install() {
    // Fails when it is installed already.
    let _installed = PROVIDER.install_default();
}

/// The kind of key that an algorithm needs; none for shared secrets.
pub(super) const fn family(algorithm: Algorithm) -> Option<AlgorithmFamily> {
    match algorithm {
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => Some(AlgorithmFamily::Rsa),
        Algorithm::ES256 | Algorithm::ES384 => Some(AlgorithmFamily::Ec),
        Algorithm::EdDSA => Some(AlgorithmFamily::Ed),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => None,
    }
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if Some(key.family()) != family(*algorithm) {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Ring { algorithm: *algorithm, kind: Kind::of(*algorithm)?, key: key.clone() }))
}

#[derive(Clone, Copy)]
enum Kind {
    Rsa(&'static ring::RsaParameters),
    Other(&'static dyn ring::VerificationAlgorithm),
}

impl Kind {
    fn of(algorithm: Algorithm) -> Result<Self, Error> {
        Ok(match algorithm {
            Algorithm::RS256 => Self::Rsa(&ring::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Self::Rsa(&ring::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Self::Rsa(&ring::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Self::Rsa(&ring::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Self::Rsa(&ring::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Self::Rsa(&ring::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => Self::Other(&ring::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Self::Other(&ring::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => Self::Other(&ring::ED25519),
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                return Err(ErrorKind::InvalidAlgorithm.into());
            }
        })
    }
}

struct Ring {
    algorithm: Algorithm,
    kind: Kind,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match (self.kind, self.key.kind()) {
            (Kind::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let key = ring::RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signature)
            }
            (Kind::Rsa(parameters), DecodingKeyKind::SecretOrDer(der)) => {
                ring::UnparsedPublicKey::new(parameters, der).verify(message, signature)
            }
            (Kind::Other(algorithm), DecodingKeyKind::SecretOrDer(point)) => {
                ring::UnparsedPublicKey::new(algorithm, point).verify(message, signature)
            }
            (Kind::Other(_), DecodingKeyKind::RsaModulusExponent { .. }) => {
                return Err(signature::Error::new());
            }
        };
        verified.map_err(|_says_nothing| signature::Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
