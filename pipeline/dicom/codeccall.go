package dicom

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"chatxray/pipeline"
)

// codecDecode makes a decoder of a function of the module.
func codecDecode(function string, check func([]byte) (stream, error)) func(context.Context, encoded) (*Pixels, error) {
	return func(ctx context.Context, f encoded) (*Pixels, error) {
		l := f.layout
		h, err := check(f.data)
		if err = firstError(err, h.fits(l)); err != nil {
			return nil, err
		}
		if l.allocated > 16 {
			return nil, fmt.Errorf("%w image: %d bits allocated in a compressed image", pipeline.ErrUnsupported, l.allocated)
		}
		told := l
		narrow := l.allocated == 16 && h.precision <= 8 // the module would leave half of each word to chance
		if narrow {
			told.allocated, told.stored = 8, min(l.stored, 8)
		}
		r, err := theCodecs.run(ctx, codecCall{
			function: function, attrs: told, input: f.data, decode: true,
			params: map[string]uint64{"ConvertColorspaceToRgb": 1},
		})
		if err != nil {
			return nil, err
		}
		if r.rows != l.rows || r.columns != l.columns || r.samples != l.samples || r.allocated != told.allocated || int64(len(r.data)) != told.frameBytes() {
			return nil, fmt.Errorf("%w image: the codestream decodes to %d x %d x %d samples of %d bits, the header says %d x %d x %d of %d",
				pipeline.ErrInvalid, r.rows, r.columns, r.samples, r.allocated, l.rows, l.columns, l.samples, l.allocated)
		}
		if narrow {
			r.data = widened(r.data, l.signed, h.precision)
		}
		l.planar, l.photometric = r.planar, r.photometric
		if l.photometric == "YBR_ICT" || l.photometric == "YBR_RCT" { // the decoder undoes these itself
			l.photometric = "RGB"
		}
		return l.pixels(r.data), nil
	}
}

// widened makes 16-bit words of bytes; negative values of a signed image stay negative.
func widened(b []byte, signed bool, precision int) []byte {
	out := make([]byte, 2*len(b))
	for i, v := range b {
		out[2*i] = v
		if signed && v>>(precision-1)&1 == 1 {
			out[2*i] = v | byte(0xFF<<precision)
			out[2*i+1] = 0xFF
		}
	}
	return out
}

// codecEncode makes an encoder of a function of the module, with the module's parameters where they differ from lossless.
func codecEncode(function string, changes map[string]uint64) func(context.Context, *Pixels) ([]byte, error) {
	params := map[string]uint64{
		"Lossy": 0, "Quality": 100, "SmoothingFactor": 0, "SampleFactor": 0, "Predictor": 1, "PointTransform": 0,
		"AllowedLossyError": 0, "ProgressionOrder": 0, "Rate": 0, "AllowMct": 0,
	}
	maps.Copy(params, changes)
	return func(ctx context.Context, p *Pixels) ([]byte, error) {
		if p.BitsAllocated > 16 {
			return nil, fmt.Errorf("%w image: %d bits allocated are not compressed", pipeline.ErrUnsupported, p.BitsAllocated)
		}
		r, err := theCodecs.run(ctx, codecCall{
			function: function, input: p.Data, params: params,
			attrs: layout{
				rows: p.Rows, columns: p.Columns, samples: p.SamplesPerPixel, allocated: p.BitsAllocated, stored: p.BitsStored,
				signed: p.Signed, planar: p.PlanarConfiguration, photometric: p.Photometric,
			},
		})
		if err != nil {
			return nil, err
		}
		return r.data, nil
	}
}

// codecCall is one run of a codec: what the module is told and what it is given.
type codecCall struct {
	function string
	attrs    layout
	input    []byte
	decode   bool
	params   map[string]uint64
}

// codecResult is what the module says about its output. data is ours.
type codecResult struct {
	rows, columns, samples, allocated, stored, planar int
	photometric                                       string
	data                                              []byte
}

// codecPhotometric are the photometric interpretations in the order of the module's enumeration.
var codecPhotometric = []string{"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}

func (i *codecInstance) call(name string, args ...uint64) (uint64, error) {
	f := i.ExportedFunction(name)
	if f == nil {
		return 0, fmt.Errorf("the module has no function %s", name)
	}
	out, err := f.Call(i.ctx, args...)
	if err != nil || len(out) == 0 {
		return 0, err
	}
	return out[0], nil
}

func (i *codecInstance) run(c codecCall) (*codecResult, error) {
	object, err := i.call("CreateCodecsContext")
	if err != nil {
		return nil, err
	}
	from, to, kind := "Decoded", "Encoded", "Encoder"
	if c.decode {
		from, to, kind = to, from, "Decoder"
	}
	photometric := 0
	for n, name := range codecPhotometric {
		if name == c.attrs.photometric {
			photometric = n
		}
	}
	signed := 0
	if c.attrs.signed {
		signed = 1
	}
	for _, a := range []struct {
		name  string
		value int
	}{
		{"Columns", c.attrs.columns}, {"Rows", c.attrs.rows}, {"BitsAllocated", c.attrs.allocated}, {"BitsStored", c.attrs.stored},
		{"SamplesPerPixel", c.attrs.samples}, {"PixelRepresentation", signed}, {"PlanarConfiguration", c.attrs.planar},
		{"PhotometricInterpretation", photometric}, {from + "BufferSize", len(c.input)},
	} {
		if _, err := i.call("Set"+a.name, object, uint64(a.value)); err != nil {
			return nil, err
		}
	}
	at, err := i.call("Get"+from+"Buffer", object)
	if err != nil {
		return nil, err
	}
	if !i.Memory().Write(uint32(at), c.input) {
		return nil, errors.New("the module gives no room for the input")
	}
	params, err := i.call("Create" + kind + "Parameters")
	if err != nil {
		return nil, err
	}
	for name, v := range c.params {
		if _, err := i.call("Set"+name, params, v); err != nil {
			return nil, err
		}
	}
	if _, err := i.call(c.function, object, params); err != nil {
		return nil, err
	}
	res, err := i.result(object, to)
	if err != nil {
		return nil, err
	}
	if _, err := i.call("Release"+kind+"Parameters", params); err != nil {
		return nil, err
	}
	_, err = i.call("ReleaseCodecsContext", object)
	return res, err
}

func (i *codecInstance) result(object uint64, to string) (*codecResult, error) {
	var r codecResult
	photometric := 0
	at, size := 0, 0
	for _, a := range []struct {
		name string
		into *int
	}{
		{"Columns", &r.columns}, {"Rows", &r.rows}, {"BitsAllocated", &r.allocated}, {"BitsStored", &r.stored},
		{"SamplesPerPixel", &r.samples}, {"PlanarConfiguration", &r.planar}, {"PhotometricInterpretation", &photometric},
		{to + "Buffer", &at}, {to + "BufferSize", &size},
	} {
		v, err := i.call("Get"+a.name, object)
		if err != nil {
			return nil, err
		}
		*a.into = int(uint32(v))
	}
	if photometric < len(codecPhotometric) {
		r.photometric = codecPhotometric[photometric]
	}
	b, ok := i.Memory().Read(uint32(at), uint32(size))
	if !ok {
		return nil, errors.New("the module's output lies outside its memory")
	}
	r.data = append([]byte(nil), b...)
	return &r, nil
}
