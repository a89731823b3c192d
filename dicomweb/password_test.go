package dicomweb

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chatxray/pipeline"
)

// Hashes of "pässword" that Python's bcrypt and argon2-cffi have made.
const (
	theirBcrypt = "$2b$08$BAN03B88YDhZ6CfvNciZv.QPepe9Okxl4knzhfy8pFB2S2.L33wH6"
	theirArgon  = "$argon2id$v=19$m=8192,t=2,p=2$69L5+I6NWPe1xHtNTq/wug$Y/VwPDYQtdqagVKLkEuQ4GrEZ0XTa4DqhNabTk8/LDc"
)

func TestHashesOfOthers(t *testing.T) {
	for _, text := range []string{theirBcrypt, theirArgon, "$2y$" + theirBcrypt[4:]} {
		h, err := parseHash(text)
		if err != nil {
			t.Fatal(text, err)
		}
		for password, want := range map[string]bool{"pässword": true, "password": false, "": false, "pässword\x00": false} {
			if got := h.fits(password); got != want {
				t.Errorf("%s with %q: %v", text[:9], password, got)
			}
		}
	}
	for _, text := range []string{"", "pässword", "$apr1$x$y", "{SHA}x", theirBcrypt[:40], "$2y$31$" + theirBcrypt[7:], "$2y$04$" + theirBcrypt[7:],
		"$argon2i" + theirArgon[9:], theirArgon[:60], "$argon2id$v=19$m=4294967295,t=2,p=2$69L5+I6NWPe1xHtNTq/wug$Y/VwPDYQtdqagVKLkEuQ4GrEZ0XTa4DqhNabTk8/LDc",
		"$argon2id$v=19$m=8192,t=99,p=2$69L5+I6NWPe1xHtNTq/wug$Y/VwPDYQtdqagVKLkEuQ4GrEZ0XTa4DqhNabTk8/LDc", "$argon2id$v=16" + theirArgon[14:]} {
		if _, err := parseHash(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// TestMemoryOfPasswords: what is remembered ends after a while, has a bound, and is not the password.
func TestMemoryOfPasswords(t *testing.T) {
	p, err := newPasswords([]User{{Name: "a", Hash: pipeline.Secret(theirBcrypt), Roles: []Role{RoleRead}}}, Htpasswd{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	p.clock = func() time.Time { return now }
	if p.remembered("a", "pässword") != nil {
		t.Error("remembered before it was shown")
	}
	if who, err := p.verify(context.Background(), "a", "pässword"); err != nil || who.name != "user:a" {
		t.Fatal(who, err)
	}
	if p.remembered("a", "pässword") == nil || p.remembered("a", "pässwor") != nil || p.remembered("b", "pässword") != nil {
		t.Error("memory")
	}
	now = now.Add(rememberFor + time.Second)
	if p.remembered("a", "pässword") != nil {
		t.Error("remembered for ever")
	}
	for i := range 2 * rememberMost {
		p.right[[32]byte{byte(i), byte(i >> 8)}] = now.Add(time.Hour)
	}
	if _, err := p.verify(context.Background(), "a", "pässword"); err != nil || len(p.right) > rememberMost || p.remembered("a", "pässword") == nil {
		t.Error(err, len(p.right))
	}
	// Who gives up waiting for a slot is let go.
	p.slots <- struct{}{}
	p.slots <- struct{}{}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.verify(ctx, "a", "pässword"); err == nil {
		t.Error("verified without a slot")
	}
}

func TestBuckets(t *testing.T) {
	b := newBuckets(2, 4)
	now := time.Now()
	b.clock = func() time.Time { return now }
	for range 4 {
		if wait := b.take("a"); wait > 0 {
			t.Fatal(wait)
		}
	}
	if wait := b.take("a"); wait != 500*time.Millisecond {
		t.Error(wait)
	}
	if wait := b.wait("b"); wait != 0 {
		t.Error("another name waits", wait)
	}
	now = now.Add(500 * time.Millisecond)
	if wait := b.take("a"); wait > 0 {
		t.Error(wait)
	}
	for i := range 3 * maxBuckets { // many addresses: bounded, and who is known stays known where others are full again
		if i%100 == 0 {
			now = now.Add(10 * time.Second)
		}
		b.take(fmt.Sprint(i))
		if len(b.all) > maxBuckets {
			t.Fatal("no bound")
		}
	}
	for ip, want := range map[string]string{"10.1.2.3": "10.1.2.3", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "::1": "::/64", "x": "x"} {
		if got := addressKey(ip); got != want {
			t.Errorf("%s: %s", ip, got)
		}
	}
}
