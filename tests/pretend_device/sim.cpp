// A pretend accelerator. Its memory is the CPU's, but its tensors live on a device of their own ("sim"): mixing them with
// CPU tensors is an error, generators belong to a device, and every look at a value from the CPU is counted as a wait.
// Each operation runs the CPU's kernel on the same memory; operations can be declared missing, as real devices lack some.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

using namespace at;

static const c10::Device SIM(c10::DeviceType::PrivateUse1, 0), HOST(c10::kCPU);
static const c10::DispatchKeySet SIM_KEYS(c10::DispatchKey::PrivateUse1), CPU_KEYS(c10::DispatchKey::CPU);
static long operations = 0, waits = 0;
static std::set<std::string> missing;

// Memory

struct SimAllocator final : c10::Allocator {
  static void release(void* data) { free(data); }
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes ? malloc(bytes) : nullptr;
    return {data, data, &release, SIM};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { memcpy(to, from, bytes); }
};
static SimAllocator allocator;

// One device, one stream, nothing asynchronous

struct SimGuard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream only() { return c10::Stream(c10::Stream::DEFAULT, SIM); }
  c10::DeviceType type() const override { return c10::DeviceType::PrivateUse1; }
  c10::Device exchangeDevice(c10::Device) const override { return SIM; }
  c10::Device getDevice() const override { return SIM; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return only(); }
  c10::Stream getNewStream(c10::Device, int) const override { return only(); }
  c10::Stream exchangeStream(c10::Stream) const override { return only(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, SimGuard)

struct SimGenerator : public CPUGeneratorImpl {
  explicit SimGenerator(uint64_t seed) : CPUGeneratorImpl(seed) { device_ = SIM; }
};
static Generator& default_generator() {
  static auto generator = make_generator<SimGenerator>(5489);
  return generator;
}

struct SimHooks : public PrivateUse1HooksInterface {
  bool isBuilt() const { return true; }  // in older versions of torch there is nothing to override
  bool isAvailable() const { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  const Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  Generator getNewGenerator(c10::DeviceIndex) const override { return make_generator<SimGenerator>(5489); }
  c10::Device getDeviceFromPtr(void*) const override { return SIM; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto fresh = allocator.allocate(bytes);
    memcpy(fresh.get(), storage.data(), std::min(bytes, static_cast<size_t>(storage.nbytes())));
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(fresh));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

// The same memory seen from the other side

static bool on_sim(const Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == c10::DeviceType::PrivateUse1;
}

static Tensor seen_from(const Tensor& tensor, c10::Device device) {
  if (!tensor.has_storage()) return tensor;
  auto* keep = new c10::Storage(tensor.storage());
  c10::DataPtr data(const_cast<void*>(keep->data()), keep, [](void* kept) { delete static_cast<c10::Storage*>(kept); },
                    device);
  c10::Allocator* owner = device.is_cpu() ? c10::GetAllocator(c10::DeviceType::CPU) : &allocator;
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), keep->nbytes(),
                                                       std::move(data), owner, true);
  auto out = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(std::move(storage)),
                                                      device.is_cpu() ? CPU_KEYS : SIM_KEYS, tensor.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.is_conj()) out._set_conj(true);
  if (tensor.is_neg()) out._set_neg(true);
  return out;
}
static Tensor on_cpu(const Tensor& tensor) { return on_sim(tensor) ? seen_from(tensor, HOST) : tensor; }

static void refuse_mixture(const std::string& operation, const std::string& what) {
  TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, sim:0 and cpu! (",
              what, " of ", operation, ")");
}

// Every operation that is not listed at the end

// As on CUDA, an index may live on the CPU.
static const std::set<std::string> INDEXING = {"aten::index", "aten::index_put_", "aten::_index_put_impl_",
                                               "aten::index_put", "aten::_unsafe_index", "aten::_unsafe_index_put"};

struct Inputs {  // the tensors of this device among the arguments, from both sides
  std::vector<Tensor> sim, cpu;
  std::string stranger;  // the first argument that lives on the CPU; single numbers may

  Tensor take(const Tensor& tensor, const std::string& name) {
    if (!tensor.defined()) return tensor;
    if (!on_sim(tensor)) {
      if (tensor.device().is_cpu() && tensor.dim() > 0 && stranger.empty()) stranger = name;
      return tensor;
    }
    sim.push_back(tensor);
    cpu.push_back(seen_from(tensor, HOST));
    return cpu.back();
  }

  Tensor give_back(const Tensor& result) {
    if (!result.defined() || !result.device().is_cpu()) return result;
    for (size_t i = 0; i < cpu.size(); i++) {
      if (result.unsafeGetTensorImpl() == cpu[i].unsafeGetTensorImpl()) return updated(sim[i], result);
    }
    for (size_t i = 0; i < cpu.size(); i++) {  // a view shares the storage of what it looks at
      if (result.has_storage() && result.storage().data() && result.storage().data() == sim[i].storage().data()) {
        auto view = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(sim[i].storage()), SIM_KEYS, result.dtype());
        view.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides(), result.storage_offset());
        return view;
      }
    }
    return seen_from(result, SIM);
  }

  static Tensor updated(const Tensor& original, const Tensor& result) {  // in place, perhaps with another shape
    if (original.sizes() != result.sizes() || original.strides() != result.strides()) {
      original.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides(), result.storage_offset());
      if (result.storage().data() != original.storage().data())
        original.unsafeGetTensorImpl()->set_storage_keep_dtype(seen_from(result, SIM).storage());
    }
    return original;
  }
};

static void run_on_cpu(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  operations++;
  const auto& schema = operation.schema();
  const auto& arguments = schema.arguments();
  const size_t first = stack->size() - arguments.size();
  TORCH_CHECK_NOT_IMPLEMENTED(!missing.count(schema.name()), "The operator '", schema.name(),
                              "' is not currently implemented for the sim device.");
  Inputs inputs;
  std::vector<std::pair<Generator, Generator>> generators;  // of this device, and a stand-in on the CPU
  for (size_t i = 0; i < arguments.size(); i++) {
    auto& value = (*stack)[first + i];
    const auto& name = arguments[i].name();
    if (value.isTensor()) {
      value = inputs.take(value.toTensor(), name);
    } else if (value.isTensorList()) {
      c10::List<Tensor> taken;
      for (const Tensor& tensor : value.toTensorVector()) taken.push_back(inputs.take(tensor, name));
      value = taken;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> taken;
      for (const std::optional<Tensor>& tensor : value.toOptionalTensorVector())
        taken.push_back(tensor ? std::optional<Tensor>(inputs.take(*tensor, name)) : tensor);
      value = taken;
    } else if (value.isDevice()) {
      value = HOST;
    }
  }
  for (size_t i = 0; i < arguments.size(); i++) {
    auto& value = (*stack)[first + i];
    if (arguments[i].name() != "generator") continue;
    Generator asked = value.isGenerator() ? value.toGenerator() : inputs.sim.empty() ? Generator() : default_generator();
    if (asked.defined() && asked.device().is_cpu() && !inputs.sim.empty()) refuse_mixture(schema.name(), "generator");
    if (!asked.defined() || asked.device().is_cpu()) continue;
    auto stand_in = make_generator<CPUGeneratorImpl>(0);
    stand_in.set_state(asked.get_state());
    generators.emplace_back(asked, stand_in);
    value = stand_in;
  }
  if (!inputs.stranger.empty() && !inputs.sim.empty() && !INDEXING.count(schema.name()))
    refuse_mixture(schema.name(), inputs.stranger);
  operation.redispatchBoxed(CPU_KEYS, stack);
  for (auto& [asked, stand_in] : generators) asked.set_state(stand_in.get_state());
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); i++) {
    auto& value = (*stack)[i];
    if (value.isTensor()) {
      value = inputs.give_back(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> given;
      for (const Tensor& tensor : value.toTensorVector()) given.push_back(inputs.give_back(tensor));
      value = given;
    }
  }
}

// Operations that need the device's own hand

static Tensor sim_empty_memory_format(c10::SymIntArrayRef size, std::optional<ScalarType> dtype, std::optional<Layout>,
                                  std::optional<c10::Device>, std::optional<bool>, std::optional<MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &allocator, SIM_KEYS, dtype_or_default(dtype), format);
}

static Tensor sim_empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<ScalarType> dtype,
                            std::optional<Layout>, std::optional<c10::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator,
                                           SIM_KEYS, dtype_or_default(dtype));
}

static Tensor sim_copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  if (on_sim(from) && !on_sim(to)) waits++;
  on_cpu(to).copy_(on_cpu(from), non_blocking);
  return to;
}

static Tensor sim_copy_from_and_resize(const Tensor& from, const Tensor& to) {
  to.resize_(from.sizes());
  return sim_copy_from(from, to, false);
}

static Scalar sim_local_scalar_dense(const Tensor& tensor) {
  waits++;
  return at::_local_scalar_dense(on_cpu(tensor));
}

static Tensor sim_as_strided(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                         std::optional<c10::SymInt> offset) {
  std::optional<int64_t> place;
  if (offset) place = offset->guard_int(__FILE__, __LINE__);
  return at::native::as_strided_tensorimpl(tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), place);
}

static Tensor sim_view(const Tensor& tensor, c10::SymIntArrayRef size) {
  return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(size));
}

static Tensor sim_reshape_alias(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

static const Tensor& sim_resize_(const Tensor& tensor, c10::SymIntArrayRef size, std::optional<MemoryFormat> format) {
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  if (format) impl->empty_tensor_restride(*format);
  const size_t bytes = (impl->storage_offset() + impl->numel()) * impl->itemsize();
  if (bytes > tensor.storage().nbytes()) SimHooks().resizePrivateUse1Bytes(tensor.storage(), bytes);
  return tensor;
}

static Tensor& sim_set_storage(Tensor& tensor, c10::Storage source, c10::SymInt offset, c10::SymIntArrayRef size,
                           c10::SymIntArrayRef stride) {
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                              offset.guard_int(__FILE__, __LINE__));
  return tensor;
}

static void same_device(const char* operation, std::initializer_list<Tensor> tensors) {
  bool sim = false, cpu = false;
  for (const Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.dim() > 0) (on_sim(tensor) ? sim : cpu) = true;
  }
  if (sim && cpu) refuse_mixture(operation, "an argument");
}

static Tensor sim_convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, IntArrayRef stride,
                          IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef output_padding,
                          int64_t groups) {
  const Tensor offset = bias.value_or(Tensor());
  same_device("convolution", {x, weight, offset});
  const auto cpu_bias = bias ? std::optional<Tensor>(on_cpu(offset)) : bias;
  return seen_from(at::convolution(on_cpu(x), on_cpu(weight), cpu_bias, stride, padding, dilation, transposed,
                                   output_padding, groups), SIM);
}

static std::tuple<Tensor, Tensor, Tensor> sim_convolution_backward(const Tensor& gradient, const Tensor& x,
                                                               const Tensor& weight, IntArrayRef stride,
                                                               IntArrayRef padding, IntArrayRef dilation,
                                                               bool transposed, IntArrayRef output_padding,
                                                               int64_t groups, std::array<bool, 3> mask) {
  same_device("convolution_backward", {gradient, x, weight});
  const std::vector<int64_t> bias_size{transposed ? weight.size(1) * groups : weight.size(0)};
  auto found = at::convolution_backward(on_cpu(gradient), on_cpu(x), on_cpu(weight), IntArrayRef(bias_size), stride,
                                        padding, dilation, transposed, output_padding, groups, mask);
  auto back = [](const Tensor& tensor) { return tensor.defined() ? seen_from(tensor, SIM) : tensor; };
  return {back(std::get<0>(found)), back(std::get<1>(found)), back(std::get<2>(found))};
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}
TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", sim_empty_memory_format);
  library.impl("empty_strided", sim_empty_strided);
  library.impl("_copy_from", sim_copy_from);
  library.impl("_copy_from_and_resize", sim_copy_from_and_resize);
  library.impl("_local_scalar_dense", sim_local_scalar_dense);
  library.impl("as_strided", sim_as_strided);
  library.impl("view", sim_view);
  library.impl("_reshape_alias", sim_reshape_alias);
  library.impl("resize_", sim_resize_);
  library.impl("set_.source_Storage_storage_offset", sim_set_storage);
  library.impl("convolution_overrideable", sim_convolution);
  library.impl("convolution_backward_overrideable", sim_convolution_backward);
}

// Autocast as torch does it on CUDA: matrix products in half precision, sums and losses in float32

#define LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define SINGLE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define SINGLE_SUM(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) { library.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(LOWER)
  AT_FORALL_FP32(SINGLE)
  AT_FORALL_FP32_SET_OPT_DTYPE(SINGLE_SUM)
  AT_FORALL_PROMOTE(WIDEST)
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("init", [] {
    static SimHooks hooks;
    c10::SetAllocator(c10::DeviceType::PrivateUse1, &allocator);
    at::RegisterPrivateUse1HooksInterface(&hooks);
  });
  module.def("default_generator", [] { return default_generator(); });
  module.def("operations", [] { return operations; });
  module.def("waits", [] { return waits; });
  module.def("lack", [](const std::set<std::string>& names) { missing = names; });
}
