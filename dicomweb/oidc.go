package dicomweb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"chatxray/pipeline"
)

// OIDC trusts the JWT access tokens (RFC 9068) of an OpenID Connect issuer.
type OIDC struct {
	Issuer   string            `yaml:"issuer"`   // https://sso.example/realms/hospital
	Audience string            `yaml:"audience"` // what a token's aud must hold
	Claim    string            `yaml:"claim"`    // where the roles are; a dotted path reaches into objects: realm_access.roles
	Roles    map[string][]Role `yaml:"roles"`    // what values of the claim mean; empty: they are the names of our roles
	Skew     time.Duration     `yaml:"skew"`     // by how much the clocks may differ
}

func (o OIDC) check() error {
	if o.Issuer == "" {
		return nil
	}
	var errs []error
	u, err := url.Parse(o.Issuer)
	local := err == nil && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && local) {
		errs = append(errs, errors.New("dicomweb.auth.oidc.issuer: not an https URL like https://sso.example/realms/hospital"))
	}
	if o.Audience == "" {
		errs = append(errs, errors.New("dicomweb.auth.oidc.audience: without one, tokens made for others would be taken"))
	}
	if o.Claim == "" {
		errs = append(errs, errors.New("dicomweb.auth.oidc.claim: nobody would have a role"))
	}
	if o.Skew < 0 || o.Skew > 10*time.Minute {
		errs = append(errs, errors.New("dicomweb.auth.oidc.skew: not between 0s and 10m"))
	}
	for value, roles := range o.Roles {
		errs = append(errs, checkRoles("oidc.roles: "+printable(value), roles))
	}
	return errors.Join(errs...)
}

// issuer checks tokens with the keys of their issuer, which are fetched when they are needed and again when a token names an unknown one.
// While the issuer cannot be reached, tokens of known keys go on to be taken.
type issuer struct {
	cfg    OIDC
	clock  func() time.Time
	client *http.Client

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil until the issuer has been found
	tried    time.Time
	failed   error
}

// An issuer that does not answer is asked again after so long.
const (
	issuerPatience = 10 * time.Second
	issuerPause    = 5 * time.Second
)

func newIssuer(cfg OIDC, clock func() time.Time) *issuer {
	return &issuer{cfg: cfg, clock: clock, client: &http.Client{Timeout: issuerPatience}}
}

// ready finds the issuer (OpenID Connect Discovery 1.0). The error wraps pipeline.ErrBusy.
func (i *issuer) ready(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.verifier != nil {
		return i.verifier, nil
	}
	if i.failed != nil && i.clock().Sub(i.tried) < issuerPause {
		return nil, i.failed
	}
	i.tried = i.clock()
	// Who waits may go away; the answer serves everybody, so it is awaited all the same.
	ctx = oidc.ClientContext(context.WithoutCancel(ctx), i.client)
	provider, err := oidc.NewProvider(ctx, i.cfg.Issuer)
	var found struct {
		Keys string `json:"jwks_uri"`
	}
	if err == nil {
		err = provider.Claims(&found)
	}
	if err != nil {
		i.failed = fmt.Errorf("%w: the issuer of tokens cannot be reached: %w", pipeline.ErrBusy, err)
		return nil, i.failed
	}
	i.verifier = oidc.NewVerifier(i.cfg.Issuer, keys{oidc.NewRemoteKeySet(ctx, found.Keys)},
		&oidc.Config{ClientID: i.cfg.Audience, SkipExpiryCheck: true, SupportedSigningAlgs: []string{
			oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}})
	i.failed = nil
	return i.verifier, nil
}

// keys notes for the caller why a signature could not be checked: the verifier does not keep the cause.
type keys struct{ oidc.KeySet }

type causeKey struct{}

// VerifySignature implements oidc.KeySet.
func (k keys) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, jwt)
	if cause, ok := ctx.Value(causeKey{}).(*error); ok {
		*cause = err
	}
	return payload, err
}

// verify tells whose token it is. The error wraps errUnauthorized, or pipeline.ErrBusy where the issuer's keys cannot be had.
func (i *issuer) verify(ctx context.Context, raw string) (*principal, error) {
	v, err := i.ready(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: the issuer of tokens cannot be reached; try again", pipeline.ErrBusy))
	}
	var cause error
	token, err := v.Verify(context.WithValue(ctx, causeKey{}, &cause), raw)
	if err != nil {
		// A signature that does not fit has no further cause; keys that could not be fetched have one.
		if cause != nil && errors.Unwrap(cause) != nil {
			return nil, fmt.Errorf("%w: the keys of the issuer of tokens cannot be fetched; try again", pipeline.ErrBusy)
		}
		return nil, fmt.Errorf("%w: the token is not for this service, or not of its issuer", errUnauthorized)
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: the token's claims cannot be read", errUnauthorized)
	}
	now := i.clock()
	notBefore, _ := claims["nbf"].(float64)
	switch {
	case token.Expiry.Unix() <= 0 || now.After(token.Expiry.Add(i.cfg.Skew)):
		return nil, fmt.Errorf("%w: the token has expired", errUnauthorized)
	case now.Add(i.cfg.Skew).Unix() < int64(notBefore):
		return nil, fmt.Errorf("%w: the token is not valid yet; the clocks may differ", errUnauthorized)
	}
	return &principal{"oidc:" + printable(token.Subject), i.roles(claims)}, nil
}

// roles reads the claim: a list, or words with spaces between them as in scope.
func (i *issuer) roles(claims map[string]any) (out []Role) {
	value, there := claims[i.cfg.Claim]
	if !there {
		value = any(claims)
		for _, name := range strings.Split(i.cfg.Claim, ".") {
			object, _ := value.(map[string]any)
			value = object[name]
		}
	}
	var words []string
	switch v := value.(type) {
	case string:
		words = strings.Fields(v)
	case []any:
		for _, w := range v {
			if s, ok := w.(string); ok {
				words = append(words, s)
			}
		}
	}
	for _, w := range words {
		roles := i.cfg.Roles[w]
		if len(i.cfg.Roles) == 0 {
			roles = []Role{Role(w)}
		}
		for _, r := range roles {
			if (r == RoleStore || r == RoleRead || r == RoleAdmin) && !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
	}
	return out
}
