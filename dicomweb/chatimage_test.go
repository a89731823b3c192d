package dicomweb_test

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"slices"
	"strings"
	"testing"

	"chatxray/dicomweb"
	"chatxray/pipeline"
)

// Pictures become what the pipeline has: their grey values, dense where bright.
func TestChatPictures(t *testing.T) {
	k := &talker{}
	s := talks(t, k)
	const side = 40
	gray, deep, colour, clear := grayPicture(side), image.NewGray16(image.Rect(0, 0, side, side)), image.NewRGBA(image.Rect(0, 0, side, side)), image.NewNRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			deep.SetGray16(x, y, color.Gray16{uint16(1000*y + x)})
			colour.Set(x, y, color.RGBA{200, 100, 50, 255})
			clear.Set(x, y, color.NRGBA{255, 255, 255, uint8(x)})
		}
	}
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, gray, nil); err != nil {
		t.Fatal(err)
	}
	decoded, err := jpeg.Decode(bytes.NewReader(jpg.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		url  string
		gray func(x, y int) float64 // 0..1
	}{
		{dataURL("image/png", pngOf(t, gray)), func(x, y int) float64 { return float64(gray.GrayAt(x, y).Y) / 255 }},
		{dataURL("image/png", pngOf(t, deep)), func(x, y int) float64 { return float64(1000*y+x) / 65535 }},
		{dataURL("image/png", pngOf(t, colour)), func(int, int) float64 { return 0.4865 }}, // 0.299·200 + 0.587·100 + 0.114·50
		{dataURL("image/png", pngOf(t, clear)), func(x, _ int) float64 { return float64(x) / 255 }},
		{dataURL("IMAGE/JPEG", jpg.Bytes()), func(x, y int) float64 { return float64(decoded.(*image.Gray).GrayAt(x, y).Y) / 255 }},
		{dataURL("image/png", jpg.Bytes()), func(x, y int) float64 { return float64(decoded.(*image.Gray).GrayAt(x, y).Y) / 255 }},
	} {
		if r := s.v1("POST", "/v1/chat/completions", askedWith(c.url, "")); r.StatusCode != 200 {
			t.Errorf("%d %s", r.StatusCode, r.body)
			continue
		}
		m := k.images[len(k.images)-1]
		if m.Rows != side || m.Columns != side || m.Bottom != side || m.Right != side || m.ViewUnknown {
			t.Errorf("%+v", m)
		}
		for y := range side {
			for x := range side {
				var word int
				if m.Pix16 != nil {
					word = int(m.Pix16[y*side+x])
				} else {
					word = int(m.Pix8[y*side+x])
				}
				if got := float64(m.LUT[word]); math.Abs(got-c.gray(x, y)) > 0.005 {
					t.Fatalf("%.30s at %d, %d: %v, want %v", c.url, x, y, got, c.gray(x, y))
				}
			}
		}
	}
}

// Conversations grow turn by turn, have their author, and go with their study.
func TestConversations(t *testing.T) {
	s := talks(t, &talker{}, with(func(c *dicomweb.Config) { c.Auth.Tokens = threeTokens }))
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	if r := s.post("/studies", related("b"), bytes.NewReader(body), "Authorization", "Bearer "+storeToken); r.StatusCode != 200 {
		t.Fatal(string(r.body))
	}
	ask := func(token string, status int, more ...string) {
		t.Helper()
		m := []string{`{"role":"user","content":[{"type":"image_url","image_url":{"url":"dicom:1.2"}},{"type":"text","text":"One?"}]}`}
		r := s.v1("POST", "/v1/chat/completions", `{"model":"talker","messages":[`+strings.Join(append(m, more...), ",")+`]}`, "Authorization", "Bearer "+token)
		if r.StatusCode != status {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
		if status != 200 {
			r.fault(t)
		}
	}
	list := func() (out []pipeline.Conversation) {
		r := s.get("/studies/1.2/conversations", "Authorization", "Bearer "+readToken)
		var v struct{ Conversations []pipeline.Conversation }
		if err := json.Unmarshal(r.body, &v); err != nil || r.StatusCode != 200 {
			t.Fatal(err, string(r.body))
		}
		return v.Conversations
	}
	ask("", 401)
	ask(storeToken, 403)
	if n := len(list()); n != 0 {
		t.Fatal(n)
	}
	ask(readToken, 200)
	ask(readToken, 200, `{"role":"assistant","content":"Größe normal."}`, `{"role":"user","content":"Two?"}`)
	ask(adminToken, 200)
	got := list()
	if len(got) != 2 || got[0].Author != "token:viewer" || got[1].Author != "token:root" || len(got[0].Messages) != 4 || len(got[1].Messages) != 2 || got[0].ID == got[1].ID {
		t.Fatalf("%+v", got)
	}
	m := got[0].Messages
	if m[0].Text != "One?" || !slices.Equal(m[0].Images, []string{"dicom:1.2"}) || m[0].Time == nil || m[1].Answer == nil || !m[1].Answer.Draft || m[1].Text != "Größe normal." ||
		m[2].Text != "Two?" || m[3].Answer == nil || m[3].Time.Before(*m[1].Time) || got[0].Started != *m[0].Time {
		t.Errorf("%+v", m)
	}
	if r := s.get("/studies/7.7/conversations", "Authorization", "Bearer "+readToken); r.StatusCode != 404 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}
