package modelrt

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatxray/parts"
)

// side is an engine that feeds a prompt and then writes so many tokens greedily.
type side struct {
	name string
	run  func(b *testing.B, ids []int32, tokens int) peerTimes
}

type peerTimes struct {
	Prefill float64   `json:"prefill"` // seconds
	Decode  []float64 `json:"decode"`
	IDs     []int32   `json:"ids"`
}

// BenchmarkPeers puts the form q4 of the default bundle, without its LoRA, beside other engines over the same base model, all with two threads. The
// sides take turns, because the machine's load changes. bench/engine/peers.sh calls it: PEERS are kinds of bench/engine/peer.py, PEERS_PYTHON runs it,
// PEERS_GENAI is the folder of genai.py.
func BenchmarkPeers(b *testing.B) {
	const threads, prompt, tokens, rounds, skip = 2, 256, 64, 7, 4
	b.Setenv("CHATXRAY_BUNDLE", withoutLoRA(b))
	exact := openBaseWith(b, func(o *Options) { o.Form, o.Threads = "q4", threads })
	eight := openBaseWith(b, func(o *Options) { o.Form, o.Threads, o.EightBits = "q4", threads, true })
	gguf, err := parts.Path(exact.bundle.Manifest.Base.Part)
	if err != nil {
		b.Fatal(err)
	}
	sides := []side{{"exact", ours(exact)}, {"int8", ours(eight)}}
	for _, kind := range strings.Fields(os.Getenv("PEERS")) {
		path := gguf
		if kind == "genai" {
			path = os.Getenv("PEERS_GENAI")
		}
		sides = append(sides, side{kind, peer(b, kind, path, threads)})
	}
	speed, prefill := make([][]float64, len(sides)), make([][]float64, len(sides))
	same := make([]int, len(sides))
	random := rand.New(rand.NewPCG(1, 1))
	for range rounds {
		ids := make([]int32, prompt)
		for i := range ids {
			ids[i] = int32(100 + random.IntN(40000))
		}
		var first []int32
		for i, s := range sides {
			t := s.run(b, ids, tokens+skip)
			speed[i] = append(speed[i], 1/middle(t.Decode[skip:]))
			prefill[i] = append(prefill[i], t.Prefill)
			if i == 0 {
				first = t.IDs
			}
			for n := 0; n < len(first) && t.IDs[n] == first[n]; n++ {
				same[i]++
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("\n%s %s, %d threads, load %s; medians of %d rounds\n", exact.bundle.Manifest.Name, exact.bundle.Manifest.Revision, threads, strings.Fields(string(load))[0], rounds)
	for i, s := range sides {
		fmt.Printf("%-6s %6.1f tokens/s   %6.0f ms for a prompt of %d   %d of %d tokens as exact, up to the first other one\n", s.name, middle(speed[i]), 1e3*middle(prefill[i]), prompt,
			same[i], rounds*(tokens+skip+1))
	}
	for i, s := range sides[2:] {
		for j, own := range sides[:2] {
			var decode, fill []float64
			for r := range rounds {
				decode, fill = append(decode, speed[j][r]/speed[i+2][r]), append(fill, prefill[i+2][r]/prefill[j][r])
			}
			fmt.Printf("%-5s ÷ %-5s  decode %.2f, prefill %.2f (medians of the rounds' ratios)\n", own.name, s.name, middle(decode), middle(fill))
		}
	}
}

// withoutLoRA is a copy of the default bundle whose language model is the base model.
func withoutLoRA(b *testing.B) string {
	dir := b.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "bundles", "chatxray-base"))); err != nil {
		b.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(dir, manifestName))), &m); err != nil {
		b.Fatal(err)
	}
	files := m["files"].(map[string]any)
	for name := range files {
		if strings.HasPrefix(name, "adapters/") {
			delete(files, name)
		}
	}
	delete(m["base"].(map[string]any), "adapter")
	if err := os.RemoveAll(filepath.Join(dir, "adapters")); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestName), must(json.Marshal(m)), 0o644); err != nil {
		b.Fatal(err)
	}
	return dir
}

// ours writes with a model's decoder, past its engine, which has nothing to do.
func ours(m *Model) func(*testing.B, []int32, int) peerTimes {
	return func(b *testing.B, ids []int32, tokens int) (t peerTimes) {
		c, err := begin(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		defer c.end()
		var feed batch
		rows := make([]float32, len(ids)*m.bundle.Manifest.Decoder.Hidden)
		past := 0
		step := func(ids []int32) float64 {
			began := time.Now()
			rows := rows[:len(ids)*m.bundle.Manifest.Decoder.Hidden]
			if err := m.decoder.lookup(c, ids, rows); err != nil {
				b.Fatal(err)
			}
			feed.clear()
			feed.add(0, past, rows, len(ids), nil)
			feed.want()
			if err := m.decoder.run(c, &feed); err != nil {
				b.Fatal(err)
			}
			id, _, err := greedy(feed.logits)
			if err != nil {
				b.Fatal(err)
			}
			past += len(ids)
			t.IDs = append(t.IDs, id)
			return time.Since(began).Seconds()
		}
		t.Prefill = step(ids)
		for range tokens {
			t.Decode = append(t.Decode, step(t.IDs[len(t.IDs)-1:]))
		}
		return t
	}
}

// peer starts bench/engine/peer.py, which lasts as long as the benchmark.
func peer(b *testing.B, kind, path string, threads int) func(*testing.B, []int32, int) peerTimes {
	cmd := exec.Command(os.Getenv("PEERS_PYTHON"), filepath.Join("..", "bench", "engine", "peer.py"), kind, path, fmt.Sprint(threads))
	cmd.Stderr = os.Stderr
	in, out := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	lines := bufio.NewReader(out)
	return func(b *testing.B, ids []int32, tokens int) (t peerTimes) {
		if err := json.NewEncoder(in).Encode(map[string]any{"ids": slices.Clone(ids), "tokens": tokens}); err != nil {
			b.Fatal(err)
		}
		line, err := lines.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &t)
		}
		if err != nil && err != io.EOF || len(t.Decode) != tokens {
			b.Fatalf("%s: %v", kind, err)
		}
		return t
	}
}
