package dicomweb

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/rs/zerolog"

	"chatxray/pipeline"
)

// Auth is the section "dicomweb.auth" of the configuration file: who may do what. Empty, everybody may.
type Auth struct {
	Tokens       []Token       `yaml:"tokens"`
	Users        []User        `yaml:"users"`
	Htpasswd     Htpasswd      `yaml:"htpasswd"`
	OIDC         OIDC          `yaml:"oidc"`
	Certificates []Certificate `yaml:"certificates"`
}

// Token is a static bearer token (RFC 6750).
type Token struct {
	Name  string          `yaml:"name"` // in logs
	Token pipeline.Secret `yaml:"token"`
	Roles []Role          `yaml:"roles"`
}

// Any tells whether somebody has to show who it is.
func (a Auth) Any() bool {
	return len(a.Tokens) > 0 || len(a.Users) > 0 || a.Htpasswd.File != "" || a.OIDC.Issuer != "" || len(a.Certificates) > 0
}

// check returns what is wrong with the section; it opens nothing.
func (a Auth) check() error {
	var errs []error
	for i, t := range a.Tokens {
		if len(t.Token.Reveal()) < 16 {
			errs = append(errs, fmt.Errorf("dicomweb.auth.tokens: number %d has fewer than 16 characters", i+1))
		}
		errs = append(errs, checkName("tokens", i, t.Name), checkRoles(fmt.Sprintf("tokens: number %d", i+1), t.Roles))
	}
	names := map[string]bool{}
	for i, u := range a.Users {
		if names[u.Name] {
			errs = append(errs, fmt.Errorf("dicomweb.auth.users: number %d has a name that another one has", i+1))
		}
		names[u.Name] = true
		if _, err := parseHash(u.Hash.Reveal()); err != nil {
			errs = append(errs, fmt.Errorf("dicomweb.auth.users: the hash of number %d: %w", i+1, err))
		}
		errs = append(errs, checkName("users", i, u.Name), checkRoles(fmt.Sprintf("users: number %d", i+1), u.Roles))
	}
	if a.Htpasswd.File != "" && len(a.Htpasswd.Roles) == 0 {
		errs = append(errs, errors.New("dicomweb.auth.htpasswd.roles: nobody of the file would have a role"))
	}
	for _, roles := range a.Htpasswd.Roles {
		errs = append(errs, checkRoles("htpasswd.roles", roles))
	}
	for i, c := range a.Certificates {
		if c.Subject == "" && c.SAN == "" {
			errs = append(errs, fmt.Errorf("dicomweb.auth.certificates: number %d says neither subject nor san", i+1))
		}
		errs = append(errs, checkName("certificates", i, c.Name), checkRoles(fmt.Sprintf("certificates: number %d", i+1), c.Roles))
	}
	return errors.Join(append(errs, a.OIDC.check())...)
}

func checkName(list string, i int, name string) error {
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == ':' || r == 0x7f }) {
		return fmt.Errorf("dicomweb.auth.%s: number %d needs a name of 1 to 64 characters without ':'", list, i+1)
	}
	return nil
}

func checkRoles(where string, roles []Role) error {
	if len(roles) == 0 {
		return fmt.Errorf("dicomweb.auth.%s has no roles; there are store, read and admin", where)
	}
	for _, r := range roles {
		if r != RoleStore && r != RoleRead && r != RoleAdmin {
			return fmt.Errorf("dicomweb.auth.%s: %q is no role; there are store, read and admin", where, printable(string(r)))
		}
	}
	return nil
}

// principal is who sends a request.
type principal struct {
	name  string // "token:NAME", "user:NAME", "oidc:SUBJECT", "certificate:NAME", or "anybody"
	roles []Role
}

func (p *principal) may(role Role) bool {
	return role == known && len(p.roles) > 0 || slices.Contains(p.roles, role)
}

// Guard tells who sends a request. It is safe for concurrent use.
type Guard struct {
	tokens    []tokenSum
	passwords *passwords // nil where nobody has one
	issuer    *issuer    // nil where no issuer is trusted
	certs     []Certificate
	failures  *buckets // tries that failed, by client
	anybody   *principal
	challenge []string
}

type tokenSum struct {
	sum [sha256.Size]byte
	who *principal
}

// NewGuard opens what the configuration names. It must have passed Check. The error tells of a file that cannot be used; an issuer that
// does not answer is no error, because it may come back.
func NewGuard(cfg Config, log zerolog.Logger) (*Guard, error) {
	g := &Guard{certs: cfg.Auth.Certificates, failures: newBuckets(failureRate, failureBurst)}
	for _, t := range cfg.Auth.Tokens {
		g.tokens = append(g.tokens, tokenSum{sha256.Sum256([]byte(t.Token.Reveal())), &principal{"token:" + t.Name, t.Roles}})
	}
	if len(cfg.Auth.Users) > 0 || cfg.Auth.Htpasswd.File != "" {
		p, err := newPasswords(cfg.Auth.Users, cfg.Auth.Htpasswd, log)
		if err != nil {
			return nil, err
		}
		g.passwords = p
		g.challenge = append(g.challenge, `Basic realm="chatxray", charset="UTF-8"`)
	}
	if cfg.Auth.OIDC.Issuer != "" {
		g.issuer = newIssuer(cfg.Auth.OIDC, time.Now, log)
	}
	if len(g.tokens) > 0 || g.issuer != nil || len(g.challenge) == 0 {
		g.challenge = append(g.challenge, `Bearer realm="chatxray"`)
	}
	if !cfg.Auth.Any() {
		g.anybody = &principal{"anybody", []Role{RoleStore, RoleRead, RoleAdmin}}
		if cfg.Unguarded { // who is in front may let anybody through: what cannot be undone stays shut
			g.anybody.roles = []Role{RoleStore, RoleRead}
		}
	}
	return g, nil
}

// A client may fail so many times at once, and then once in so many seconds. Right tokens pass all the while.
const (
	failureBurst = 10
	failureRate  = 1.0 / 6
)

// tooManyError says when a client may come again.
type tooManyError struct {
	what  string
	after time.Duration
}

func (e *tooManyError) Error() string { return errTooMany.Error() + ": " + e.what }
func (e *tooManyError) Unwrap() error { return errTooMany }

// who tells who sends a request from the address client. What is checked cheaply comes first; what costs (hashes, the issuer's keys) is
// only done for a client that has not failed too often.
func (g *Guard) who(r *http.Request, client string) (*principal, error) {
	if g.anybody != nil {
		return g.anybody, nil
	}
	scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	credentials = strings.TrimSpace(credentials)
	bearer := strings.EqualFold(scheme, "Bearer") && (len(g.tokens) > 0 || g.issuer != nil)
	user, password, basic := r.BasicAuth()
	switch {
	case bearer:
		if p := g.token(credentials); p != nil {
			return p, nil
		}
	case basic && g.passwords != nil:
		if p := g.passwords.remembered(user, password); p != nil {
			return p, nil
		}
	default:
		return g.certificate(r)
	}
	if wait := g.failures.wait(client); wait > 0 {
		return nil, &tooManyError{"too many wrong credentials came from this address", wait}
	}
	var p *principal
	err := fmt.Errorf("%w: the token is none of this service", errUnauthorized)
	switch {
	case !bearer:
		p, err = g.passwords.verify(r.Context(), user, password)
	case g.issuer != nil && strings.Count(credentials, ".") == 2:
		p, err = g.issuer.verify(r.Context(), credentials)
	}
	if errors.Is(err, errUnauthorized) {
		g.failures.take(client)
	}
	return p, err
}

// token compares with every token, and takes the same time whichever it is.
func (g *Guard) token(shown string) (found *principal) {
	sum := sha256.Sum256([]byte(shown))
	for _, t := range g.tokens {
		if subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1 {
			found = t.who
		}
	}
	return found
}

// Certificate gives roles to a client certificate of the CA in dicomweb.tls.client_ca. What is set must match.
type Certificate struct {
	Name    string `yaml:"name"`    // in logs
	Subject string `yaml:"subject"` // the whole subject as RFC 4514 writes it (openssl x509 -subject -nameopt RFC2253); * is any
	SAN     string `yaml:"san"`     // one of its alternative names: DNS, URI, e-mail or IP address
	Roles   []Role `yaml:"roles"`
}

func (c Certificate) matches(x *x509.Certificate) bool {
	if c.Subject != "" && c.Subject != "*" && c.Subject != x.Subject.String() {
		return false
	}
	if c.SAN == "" {
		return true
	}
	names := slices.Concat(x.DNSNames, x.EmailAddresses)
	for _, u := range x.URIs {
		names = append(names, u.String())
	}
	for _, ip := range x.IPAddresses {
		names = append(names, ip.String())
	}
	return slices.Contains(names, c.SAN)
}

// certificate knows a client by the certificate of its connection.
func (g *Guard) certificate(r *http.Request) (*principal, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(g.certs) == 0 {
		if r.Header.Get("Authorization") != "" && len(g.challenge) > 0 {
			return nil, fmt.Errorf("%w: the Authorization header must begin with %s", errUnauthorized, g.schemes())
		}
		return nil, fmt.Errorf("%w: this resource needs an Authorization header%s", errUnauthorized, g.orCertificate())
	}
	for _, c := range g.certs {
		if c.matches(r.TLS.PeerCertificates[0]) {
			return &principal{"certificate:" + c.Name, c.Roles}, nil
		}
	}
	return nil, fmt.Errorf("%w: the client certificate is of nobody who is configured", errUnauthorized)
}

// schemes are the words with which an Authorization header begins.
func (g *Guard) schemes() string {
	var out []string
	for _, ch := range g.challenge {
		scheme, _, _ := strings.Cut(ch, " ")
		out = append(out, `"`+scheme+` "`)
	}
	return strings.Join(out, " or ")
}

func (g *Guard) orCertificate() string {
	if len(g.certs) > 0 {
		return " or a client certificate"
	}
	return ""
}

// admitTo lets pass who has the role that a route needs, within the limits of one client.
func (s *server) admitTo(role Role) gin.HandlerFunc {
	if role == anybody {
		return func(*gin.Context) {}
	}
	return func(c *gin.Context) {
		h := c.Writer.Header() // of every answer about patients, unless it has a name by which a cache can ask whether it is still right
		h.Set("Cache-Control", "no-store")
		h.Add("Vary", "Accept")
		p, err := s.Guard.who(c.Request, addressKey(c.ClientIP()))
		if err == nil {
			c.Set(principalKey, p.name)
			if !p.may(role) {
				err = fmt.Errorf("%w: this needs the role %s", errForbidden, role)
			}
		}
		if err != nil {
			s.refuse(c, err)
			return
		}
		client := p.name
		if s.Guard.anybody != nil {
			client = addressKey(c.ClientIP())
		}
		release, err := s.clients.enter(client)
		if err != nil {
			s.refuse(c, err)
			return
		}
		defer release()
		c.Next()
	}
}

// principalKey is the key under which the access log finds who sent a request.
const principalKey = "principal"

// deny sets the headers that tell a client how to be let in.
func (s *server) deny(c *gin.Context, err error) {
	var later *tooManyError
	switch {
	case errors.Is(err, errUnauthorized):
		for _, ch := range s.Guard.challenge {
			if strings.HasPrefix(ch, "Bearer") && c.GetHeader("Authorization") != "" {
				ch += `, error="invalid_token"`
			}
			c.Writer.Header().Add("WWW-Authenticate", ch)
		}
	case errors.As(err, &later):
		c.Header("Retry-After", strconv.Itoa(int(later.after/time.Second)+1))
	}
}

// Check tells whether the issuer of tokens, where one is trusted, can be reached or has been before.
func (g *Guard) Check(ctx context.Context) error {
	if g.issuer == nil {
		return nil
	}
	_, err := g.issuer.ready(ctx)
	return err
}
