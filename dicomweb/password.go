package dicomweb

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"chatxray/pipeline"
)

// User may come with name and password (RFC 7617).
type User struct {
	Name  string          `yaml:"name"`
	Hash  pipeline.Secret `yaml:"hash"` // bcrypt ($2y$...) or argon2id ($argon2id$v=19$...)
	Roles []Role          `yaml:"roles"`
}

// Htpasswd names a file of names and bcrypt or argon2id hashes, as htpasswd -B writes it. It is read again when it changes.
type Htpasswd struct {
	File  string            `yaml:"file"`
	Roles map[string][]Role `yaml:"roles"` // by name; * is everybody else of the file
}

// passwordHash checks a password.
type passwordHash struct {
	text   string
	argon  bool
	memory uint32 // KiB
	passes uint32
	lanes  uint8
	salt   []byte
	sum    []byte
}

// The most that a hash may cost: a configured mistake must not stop the service. A hash that costs less than the least is refused too.
const (
	minBcrypt, maxBcrypt = 8, 14
	maxArgonMemory       = 256 << 10 // KiB
	maxArgonPasses       = 16
)

// parseHash reads a hash in modular crypt format. Its error does not quote it.
func parseHash(s string) (*passwordHash, error) {
	switch {
	case strings.HasPrefix(s, "$2"):
		cost, err := bcrypt.Cost([]byte(s))
		if err != nil {
			return nil, errors.New("it is no whole bcrypt hash")
		}
		if cost < minBcrypt || cost > maxBcrypt {
			return nil, fmt.Errorf("its bcrypt cost %d is not between %d and %d", cost, minBcrypt, maxBcrypt)
		}
		return &passwordHash{text: s}, nil
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon(s)
	}
	return nil, errors.New("it is neither bcrypt ($2y$...) nor argon2id ($argon2id$...); make one with htpasswd -nB NAME")
}

func parseArgon(s string) (*passwordHash, error) {
	h := &passwordHash{text: s, argon: true}
	f := strings.Split(s, "$") // "", argon2id, v=19, m=..,t=..,p=.., salt, sum
	var err error
	if len(f) == 6 && f[2] == "v=19" {
		if _, err = fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.lanes); err == nil {
			if h.salt, err = base64.RawStdEncoding.DecodeString(f[4]); err == nil {
				h.sum, err = base64.RawStdEncoding.DecodeString(f[5])
			}
		}
	}
	switch {
	case err != nil || len(h.salt) < 8 || len(h.sum) < 16 || len(h.sum) > 128:
		return nil, errors.New("it is no whole argon2id hash of version 19")
	case h.memory < 8<<10 || h.memory > maxArgonMemory || h.passes < 1 || h.passes > maxArgonPasses || h.lanes < 1:
		return nil, fmt.Errorf("its argon2id parameters are not within m=8192..%d, t=1..%d, p=1..255", maxArgonMemory, maxArgonPasses)
	}
	return h, nil
}

func (h *passwordHash) fits(password string) bool {
	if h.argon {
		sum := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.lanes, uint32(len(h.sum)))
		return subtle.ConstantTimeCompare(sum, h.sum) == 1
	}
	return bcrypt.CompareHashAndPassword([]byte(h.text), []byte(password)) == nil
}

// login is a user with a password.
type login struct {
	who  *principal
	hash *passwordHash
}

// passwords checks names and passwords. What was right is remembered for a while, under a keyed hash, so that a request does not cost the
// hash's tenth of a second.
type passwords struct {
	configured map[string]login
	file       *watched[map[string]login] // nil without a file
	key        [32]byte
	slots      chan struct{} // hashes at the same time: each takes a core and up to 256 MiB
	dummy      *passwordHash // makes an unknown name cost what a known one does
	clock      func() time.Time

	mu    sync.Mutex
	right map[[32]byte]time.Time // until when
}

// The memory of passwords that were right.
const (
	rememberFor  = 5 * time.Minute
	rememberMost = 1024
)

func newPasswords(users []User, file Htpasswd, log zerolog.Logger) (*passwords, error) {
	p := &passwords{configured: map[string]login{}, slots: make(chan struct{}, 2), clock: time.Now, right: map[[32]byte]time.Time{}}
	_, _ = rand.Read(p.key[:]) // never fails
	for _, u := range users {
		h, err := parseHash(u.Hash.Reveal())
		if err != nil {
			return nil, fmt.Errorf("%w: dicomweb.auth.users: %s: %w", pipeline.ErrInvalid, u.Name, err)
		}
		p.configured[u.Name] = login{&principal{"user:" + u.Name, u.Roles}, h}
		p.dummy = h
	}
	if file.File != "" {
		w, err := watch([]string{file.File}, func() (map[string]login, error) { return readHtpasswd(file) }, log)
		if err != nil {
			return nil, fmt.Errorf("%w: dicomweb.auth.htpasswd: %w", pipeline.ErrInvalid, err)
		}
		p.file = w
		for _, l := range w.value() {
			p.dummy = l.hash
		}
	}
	return p, nil
}

// readHtpasswd reads lines NAME:HASH; empty ones and those that begin with # are left out.
func readHtpasswd(cfg Htpasswd) (map[string]login, error) {
	b, err := os.ReadFile(cfg.File)
	if err != nil {
		return nil, err
	}
	out := map[string]login{}
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s, line %d: it is not NAME:HASH", cfg.File, i+1)
		}
		h, err := parseHash(hash)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: the hash: %w", cfg.File, i+1, err)
		}
		roles, given := cfg.Roles[name]
		if !given {
			roles = cfg.Roles["*"]
		}
		out[name] = login{&principal{"user:" + name, roles}, h}
	}
	return out, nil
}

func (p *passwords) find(user string) (login, bool) {
	if l, ok := p.configured[user]; ok {
		return l, true
	}
	if p.file == nil {
		return login{}, false
	}
	l, ok := p.file.value()[user]
	return l, ok
}

// tag names a login that was right; it changes with the hash.
func (p *passwords) tag(l login, password string) (sum [32]byte) {
	m := hmac.New(sha256.New, p.key[:])
	for _, s := range []string{l.who.name, l.hash.text, password} {
		_ = binary.Write(m, binary.BigEndian, uint64(len(s)))
		m.Write([]byte(s))
	}
	return [32]byte(m.Sum(nil))
}

// remembered tells who it is where name and password were right a short while ago.
func (p *passwords) remembered(user, password string) *principal {
	l, ok := p.find(user)
	if !ok {
		return nil
	}
	t := p.tag(l, password)
	p.mu.Lock()
	defer p.mu.Unlock()
	if until, ok := p.right[t]; ok && p.clock().Before(until) {
		return l.who
	}
	return nil
}

// verify checks name and password.
func (p *passwords) verify(ctx context.Context, user, password string) (*principal, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l, ok := p.find(user)
	hash := l.hash
	if !ok {
		hash = p.dummy
	}
	if hash == nil || !hash.fits(password) || !ok {
		return nil, fmt.Errorf("%w: name or password is wrong", errUnauthorized)
	}
	t, now := p.tag(l, password), p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, until := range p.right {
		if len(p.right) < rememberMost {
			break
		}
		if now.After(until) {
			delete(p.right, k)
		}
	}
	for k := range p.right {
		if len(p.right) < rememberMost {
			break
		}
		delete(p.right, k)
	}
	p.right[t] = now.Add(rememberFor)
	return l.who, nil
}
