package modelrt

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"

	"chatxray/pipeline"
)

// placing says of each place of a prompt what stands there, where the model takes it to be, and how far it sees.
type placing struct {
	ids      []int32    // of the vocabulary; where an image's embedding stands, the token that stood there in training
	image    []int32    // which of the images' embeddings, counted through all of them, stands at the place; -1 for the token's own
	position [][3]int32 // of plain text three times the place
	upto     []int32    // the place behind the last that the place sees
	step     [3]int32   // from the last place's position to that of the answer's first token, and on from token to token
}

// raster is how the embeddings of an image lie: rows of columns.
type raster struct{ rows, columns int }

func (r raster) count() int { return r.rows * r.columns }

// maxImages bounds the images of one prompt.
const maxImages = 64

// text appends tokens that are themselves.
func (p *placing) text(ids ...int32) {
	for _, id := range ids {
		p.put(id, -1)
	}
}

func (p *placing) put(id, image int32) {
	at := int32(len(p.ids))
	p.ids, p.image = append(p.ids, id), append(p.image, image)
	p.position, p.upto = append(p.position, [3]int32{at, at, at}), append(p.upto, at+1)
}

// follow appends a token of an answer, which becomes a part of the prompt of another.
func (p *placing) follow(id int32) {
	position, upto := p.at(len(p.ids))
	p.put(id, -1)
	p.position[len(p.ids)-1], p.upto[len(p.ids)-1] = position, upto
}

// at is how a place lies, of the prompt or of the answer behind it.
func (p *placing) at(place int) (position [3]int32, upto int32) {
	n := len(p.ids)
	if place < n {
		return p.position[place], p.upto[place]
	}
	position = p.position[n-1]
	for i, s := range p.step {
		position[i] += int32(place-n+1) * s
	}
	return position, int32(place + 1)
}

// whole is how many of the places from past on are fed at once where n are wanted: those that see each other are not parted.
func (p *placing) whole(past, n int) int {
	for i := past; i < min(past+n, len(p.upto)); i++ {
		n = max(n, int(p.upto[i])-past)
	}
	return n
}

// runs calls f for each stretch of places that hold an image's embeddings or stand among them: from its first embedding to behind its last.
// first holds the number of each image's first embedding.
func (p *placing) runs(first []int32, f func(image, from, to int)) {
	for i, n := range first {
		from, to := -1, -1
		for at, e := range p.image {
			if e >= n && (i+1 == len(first) || e < first[i+1]) {
				if from < 0 {
					from = at
				}
				to = at + 1
			}
		}
		if from >= 0 {
			f(i, from, to)
		}
	}
}

// keys names the places: equal keys after equal ones before have the same cache. images are the keys of the images' embeddings.
func (p *placing) keys(images []uint64) []uint64 {
	keys := make([]uint64, 0, len(p.ids))
	for i, id := range p.ids {
		key := uint64(id)
		if e := p.image[i]; e >= 0 {
			key = images[e]
		}
		keys = append(keys, p.key(i, key))
	}
	// What sees places behind itself depends on them.
	for from := 0; from < len(keys); {
		to := from + 1
		if end := int(p.upto[from]); end > to {
			for to < end && int(p.upto[to]) == end {
				to++
			}
			block := mixed(keys[from:end]...)
			for i := from; i < to; i++ {
				keys[i] = mixed(keys[i], block)
			}
		}
		from = to
	}
	return keys
}

// key is that of what stands at a place, of the prompt or of the answer behind it, and sees nothing behind itself. p may be nil.
func (p *placing) key(place int, what uint64) uint64 {
	if p == nil {
		return what
	}
	at, _ := p.at(place)
	if i := int32(place); at == [3]int32{i, i, i} {
		return what
	}
	return mixed(what, uint64(uint32(at[0]))|uint64(uint32(at[1]))<<32, uint64(uint32(at[2])))
}

// mixed is a key made of others; none is that of a token.
func mixed(keys ...uint64) uint64 {
	var h maphash.Hash
	h.SetSeed(keySeed)
	var b [8]byte
	for _, k := range keys {
		binary.LittleEndian.PutUint64(b[:], k)
		h.Write(b[:])
	}
	return h.Sum64() | 1<<63
}

// check refuses a prompt that leaves no place for an answer.
func (p *placing) check(most int) error {
	if len(p.ids) == 0 || p.image[len(p.ids)-1] >= 0 {
		return fmt.Errorf("%w: a prompt must end in text", pipeline.ErrInvalid)
	}
	if len(p.ids) >= most {
		return fmt.Errorf("%w: the prompt has %d tokens, which leaves none of decoder.max_length %d for an answer", pipeline.ErrInvalid, len(p.ids), most)
	}
	return nil
}
