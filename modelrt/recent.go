package modelrt

import "slices"

// recent remembers what was used last, up to a size of all together; the newest stays whatever its size. It is for few, large things. The
// zero value is empty.
type recent[K comparable, V any] struct {
	items []recentItem[K, V] // the newest last
	size  int
}

type recentItem[K comparable, V any] struct {
	key   K
	value V
	size  int
}

func (r *recent[K, V]) get(key K) (v V, ok bool) {
	i := slices.IndexFunc(r.items, func(i recentItem[K, V]) bool { return i.key == key })
	if i < 0 {
		return v, false
	}
	item := r.items[i]
	r.items = append(slices.Delete(r.items, i, i+1), item)
	return item.value, true
}

func (r *recent[K, V]) put(key K, v V, size, most int) {
	if _, ok := r.get(key); ok {
		last := len(r.items) - 1
		r.size -= r.items[last].size
		r.items = r.items[:last]
	}
	r.items, r.size = append(r.items, recentItem[K, V]{key, v, size}), r.size+size
	for r.size > most && len(r.items) > 1 {
		r.size -= r.items[0].size
		r.items = slices.Delete(r.items, 0, 1)
	}
}
