package remote

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"chatxray/pipeline"
)

// Identity is what an endpoint says that it serves. The time that it gives with it is left out: vLLM and llama.cpp put there when they were asked.
type Identity struct {
	ID      string // as asked for
	Root    string // vLLM: what the weights were loaded from
	Parent  string // vLLM: of an adapter, its base
	Digest  string // another chatxray: of its bundle
	Version string // and the bundle's revision
}

// String is the identity in one line.
func (i Identity) String() string {
	s := []string{i.ID}
	for _, p := range []struct{ name, value string }{{"root", i.Root}, {"parent", i.Parent}, {"revision", i.Version}, {"digest", i.Digest}} {
		if p.value != "" && p.value != i.ID {
			s = append(s, p.name+" "+p.value)
		}
	}
	return strings.Join(s, ", ")
}

// Identify asks what the endpoint serves, unless it told within the last minute. Errors: ErrUnavailable, also where the model is not among what it
// serves, and ErrBusy.
func (c *Client) Identify(ctx context.Context) (Identity, error) {
	c.mu.Lock()
	known, fresh := c.known, time.Since(c.asked) < freshEnough && c.known.ID != ""
	c.mu.Unlock()
	if fresh {
		return known, nil
	}
	var list struct {
		Data []struct {
			ID, Root, Parent string
			Chatxray         struct{ Version, Digest string }
		}
	}
	taken := false
	if err := c.attempts(ctx, &taken, func(ctx context.Context) error { return c.whole(ctx, http.MethodGet, "/models", nil, &list) }); err != nil {
		return Identity{}, err
	}
	var there []string
	for _, m := range list.Data {
		if m.ID != c.cfg.Model {
			there = append(there, fmt.Sprintf("%q", short(m.ID)))
			continue
		}
		i := Identity{ID: short(m.ID), Root: short(m.Root), Parent: short(m.Parent), Digest: short(m.Chatxray.Digest), Version: short(m.Chatxray.Version)}
		c.mu.Lock()
		c.known, c.asked = i, time.Now()
		c.mu.Unlock()
		return i, nil
	}
	const most = 8
	if len(there) > most {
		there = append(there[:most], "...")
	}
	return Identity{}, fmt.Errorf("%w: the endpoint does not serve the model %q; it has %s; look at remote.model", pipeline.ErrUnavailable, c.cfg.Model, strings.Join(there, ", "))
}

// Known is what the endpoint told last; the zero Identity when it never did.
func (c *Client) Known() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known
}

// Forget makes the next Identify ask: something shows that the endpoint is another one.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = time.Time{}
}

// short makes a name of others fit for a line of a report.
func short(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar || r == '\\' {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 120 {
		s = string(r[:120])
	}
	return s
}
