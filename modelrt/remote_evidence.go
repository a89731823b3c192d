package modelrt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"chatxray/modelrt/remote"
	"chatxray/pipeline"
)

// scores returns the log-probabilities of the text's tokens after the image, each decoy and the blank image, and sets where the tokens begin; or else why there
// are none. An endpoint that promises them and fails is an error, so that the report is tried again.
func (r *Remote) scores(ctx context.Context, picture []byte, a *answer, got *remote.Answer) (rows [][]float64, none string, err error) {
	switch r.bundle.Manifest.Remote.Evidence {
	case remote.EvidenceChatxray:
		rows, none = ownScores(a, got)
	case remote.EvidencePrompt:
		rows, err = r.promptScores(ctx, picture, a)
		if errors.Is(err, remote.ErrNoScores) {
			return nil, "the model's endpoint gave no log-probabilities of the text", nil
		}
	default:
		none = "the model's endpoint gives no log-probabilities"
	}
	return rows, none, err
}

// ownScores reads what another chatxray tells with its answer.
func ownScores(a *answer, got *remote.Answer) (rows [][]float64, none string) {
	e := got.Evidence
	if e == nil || len(e.Decoys) == 0 || len(e.Decoys) > maxDecoys || len(got.Tokens) == 0 {
		return nil, "the model's endpoint gave none with its report"
	}
	var spelled []byte
	for _, t := range got.Tokens {
		a.starts, a.logprobs = append(a.starts, len(spelled)), append(a.logprobs, t.Logprob)
		spelled = append(spelled, t.Text...)
	}
	rows = append(append([][]float64{a.logprobs}, e.Decoys...), e.Blank)
	for _, row := range rows {
		for _, v := range row {
			if !(v <= 0) || !bytes.HasPrefix(spelled, a.text) {
				a.starts = nil
				return nil, "what the model's endpoint gave does not fit its report"
			}
		}
		if len(row) != len(got.Tokens) {
			a.starts = nil
			return nil, "what the model's endpoint gave does not fit its report"
		}
	}
	return rows, ""
}

// promptScores asks for the log-probabilities of the text after each picture: as many requests as there are decoys, and two.
func (r *Remote) promptScores(ctx context.Context, picture []byte, a *answer) ([][]float64, error) {
	black, err := blankLike(picture)
	if err != nil {
		return nil, err
	}
	pictures := append(append([][]byte{picture}, r.decoys...), black)
	scored := make([][]remote.Scored, len(pictures))
	g, ctx := errgroup.WithContext(ctx)
	for i, p := range pictures {
		g.Go(func() (err error) {
			scored[i], err = r.client.Score(ctx, r.asked(p), string(a.text))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	rows := make([][]float64, len(scored))
	for i, tokens := range scored {
		if len(tokens) != len(scored[0]) {
			return nil, remote.ErrNoScores
		}
		for k, t := range tokens {
			if t.Text != scored[0][k].Text {
				return nil, remote.ErrNoScores
			}
			rows[i] = append(rows[i], t.Logprob)
		}
	}
	a.starts = startsOf(string(a.text), scored[0])
	a.logprobs = rows[0]
	return rows, nil
}

// startsOf finds where tokens begin in a text, of which they lack white space.
func startsOf(text string, tokens []remote.Scored) []int {
	starts, at := make([]int, len(tokens)), 0
	for i, t := range tokens {
		begun := false
		for _, c := range t.Text {
			if !remote.Seen(c) {
				continue
			}
			for at < len(text) {
				r, n := utf8.DecodeRuneInString(text[at:])
				if !unicode.IsSpace(r) {
					break
				}
				at += n
			}
			if !begun {
				starts[i], begun = at, true
			}
			at += utf8.RuneLen(c)
		}
		if !begun {
			starts[i] = at
		}
	}
	return starts
}

// blankLike is a black picture of the size of another one.
func blankLike(picture []byte) ([]byte, error) {
	c, err := png.DecodeConfig(bytes.NewReader(picture))
	if err != nil {
		return nil, fmt.Errorf("%w: the picture: %v", pipeline.ErrInvalid, err)
	}
	var b bytes.Buffer
	err = png.Encode(&b, image.NewGray(image.Rect(0, 0, c.Width, c.Height)))
	return b.Bytes(), err
}
