// A Vulkan layer for devices without hardware, such as RADV's null device: they compile, but have no memory, semaphores or fences, which
// wgpu asks for. Here memory is the host's, and the others are handles without meaning. Nothing is submitted, and what is submitted counts
// as done.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#define EXPORT __attribute__((visibility("default")))

// A program has one instance and one device.
static VkInstance instance;
static PFN_vkGetInstanceProcAddr next_of_instance;
static PFN_vkGetDeviceProcAddr next_of_device;
static uint64_t handles;
static uint64_t signaled;  // by the last submission

static VkResult create_semaphore(VkDevice device, const VkSemaphoreCreateInfo *info, const VkAllocationCallbacks *allocator, VkSemaphore *created) {
    *created = (VkSemaphore)++handles;
    return VK_SUCCESS;
}

static void destroy_semaphore(VkDevice device, VkSemaphore semaphore, const VkAllocationCallbacks *allocator) {}

static VkResult create_fence(VkDevice device, const VkFenceCreateInfo *info, const VkAllocationCallbacks *allocator, VkFence *created) {
    *created = (VkFence)++handles;
    return VK_SUCCESS;
}

static void destroy_fence(VkDevice device, VkFence fence, const VkAllocationCallbacks *allocator) {}

static VkResult reset_fences(VkDevice device, uint32_t count, const VkFence *fences) { return VK_SUCCESS; }

static VkResult fence_status(VkDevice device, VkFence fence) { return VK_SUCCESS; }

static VkResult wait_for_fences(VkDevice device, uint32_t count, const VkFence *fences, VkBool32 all, uint64_t timeout) { return VK_SUCCESS; }

static VkResult counter_value(VkDevice device, VkSemaphore semaphore, uint64_t *value) {
    *value = signaled;
    return VK_SUCCESS;
}

static VkResult wait_semaphores(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout) { return VK_SUCCESS; }

static VkResult queue_submit(VkQueue queue, uint32_t count, const VkSubmitInfo *submits, VkFence fence) {
    for (uint32_t i = 0; i < count; i++) {
        for (const VkBaseInStructure *more = submits[i].pNext; more; more = more->pNext) {
            if (more->sType != VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO) continue;
            const VkTimelineSemaphoreSubmitInfo *timeline = (const VkTimelineSemaphoreSubmitInfo *)more;
            for (uint32_t j = 0; j < timeline->signalSemaphoreValueCount; j++) {
                if (timeline->pSignalSemaphoreValues[j] > signaled) signaled = timeline->pSignalSemaphoreValues[j];
            }
        }
    }
    return VK_SUCCESS;
}

static void memory_properties(VkPhysicalDevice adapter, VkPhysicalDeviceMemoryProperties *found) {
    memset(found, 0, sizeof *found);
    found->memoryHeapCount = found->memoryTypeCount = 1;
    found->memoryHeaps[0] = (VkMemoryHeap){.size = 1ull << 32, .flags = VK_MEMORY_HEAP_DEVICE_LOCAL_BIT};
    found->memoryTypes[0].propertyFlags =
        VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
}

static void memory_properties2(VkPhysicalDevice adapter, VkPhysicalDeviceMemoryProperties2 *found) {
    memory_properties(adapter, &found->memoryProperties);
}

static void buffer_requirements(VkDevice device, VkBuffer buffer, VkMemoryRequirements *found) {
    ((PFN_vkGetBufferMemoryRequirements)next_of_device(device, "vkGetBufferMemoryRequirements"))(device, buffer, found);
    found->memoryTypeBits = 1;
}

static VkResult allocate(VkDevice device, const VkMemoryAllocateInfo *info, const VkAllocationCallbacks *allocator, VkDeviceMemory *allocated) {
    *allocated = (VkDeviceMemory)calloc(1, info->allocationSize);
    return *allocated ? VK_SUCCESS : VK_ERROR_OUT_OF_HOST_MEMORY;
}

static void free_memory(VkDevice device, VkDeviceMemory memory, const VkAllocationCallbacks *allocator) { free((void *)memory); }

static VkResult map(VkDevice device, VkDeviceMemory memory, VkDeviceSize offset, VkDeviceSize size, VkMemoryMapFlags flags, void **mapped) {
    *mapped = (char *)memory + offset;
    return VK_SUCCESS;
}

static void unmap(VkDevice device, VkDeviceMemory memory) {}

static VkResult bind_buffer(VkDevice device, VkBuffer buffer, VkDeviceMemory memory, VkDeviceSize offset) { return VK_SUCCESS; }

// Commands would reach for memory that the driver does not know.
static VkResult begin(VkCommandBuffer commands, const VkCommandBufferBeginInfo *info) { return VK_SUCCESS; }

static VkResult end(VkCommandBuffer commands) { return VK_SUCCESS; }

static void record(void) {}

static void update_sets(
    VkDevice device, uint32_t writes, const VkWriteDescriptorSet *written, uint32_t copies, const VkCopyDescriptorSet *copied) {}

// Of handles without meaning, too.
static VkResult set_name(VkDevice device, const VkDebugUtilsObjectNameInfoEXT *info) { return VK_SUCCESS; }

static VkResult queue_idle(VkQueue queue) { return VK_SUCCESS; }

static VkResult device_idle(VkDevice device) { return VK_SUCCESS; }

static VkResult create_instance(const VkInstanceCreateInfo *info, const VkAllocationCallbacks *allocator, VkInstance *created) {
    VkLayerInstanceCreateInfo *link = (VkLayerInstanceCreateInfo *)info->pNext;
    while (link && !(link->sType == VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO && link->function == VK_LAYER_LINK_INFO)) {
        link = (VkLayerInstanceCreateInfo *)link->pNext;
    }
    if (!link) return VK_ERROR_INITIALIZATION_FAILED;
    next_of_instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    VkResult result = ((PFN_vkCreateInstance)next_of_instance(NULL, "vkCreateInstance"))(info, allocator, created);
    instance = *created;
    return result;
}

static VkResult create_device(VkPhysicalDevice adapter, const VkDeviceCreateInfo *info, const VkAllocationCallbacks *allocator, VkDevice *created) {
    VkLayerDeviceCreateInfo *link = (VkLayerDeviceCreateInfo *)info->pNext;
    while (link && !(link->sType == VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO && link->function == VK_LAYER_LINK_INFO)) {
        link = (VkLayerDeviceCreateInfo *)link->pNext;
    }
    if (!link) return VK_ERROR_INITIALIZATION_FAILED;
    PFN_vkGetInstanceProcAddr next = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    next_of_device = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    return ((PFN_vkCreateDevice)next(instance, "vkCreateDevice"))(adapter, info, allocator, created);
}

EXPORT PFN_vkVoidFunction vkGetDeviceProcAddr(VkDevice device, const char *name);
EXPORT PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char *name);

static PFN_vkVoidFunction own(const char *name) {
    static const struct {
        const char *name;
        void *function;
    } all[] = {
        {"vkGetInstanceProcAddr", vkGetInstanceProcAddr},
        {"vkGetDeviceProcAddr", vkGetDeviceProcAddr},
        {"vkCreateInstance", create_instance},
        {"vkCreateDevice", create_device},
        {"vkCreateSemaphore", create_semaphore},
        {"vkDestroySemaphore", destroy_semaphore},
        {"vkCreateFence", create_fence},
        {"vkDestroyFence", destroy_fence},
        {"vkResetFences", reset_fences},
        {"vkGetFenceStatus", fence_status},
        {"vkWaitForFences", wait_for_fences},
        {"vkGetSemaphoreCounterValue", counter_value},
        {"vkGetSemaphoreCounterValueKHR", counter_value},
        {"vkWaitSemaphores", wait_semaphores},
        {"vkWaitSemaphoresKHR", wait_semaphores},
        {"vkQueueSubmit", queue_submit},
        {"vkQueueWaitIdle", queue_idle},
        {"vkDeviceWaitIdle", device_idle},
        {"vkSetDebugUtilsObjectNameEXT", set_name},
        {"vkGetPhysicalDeviceMemoryProperties", memory_properties},
        {"vkGetPhysicalDeviceMemoryProperties2", memory_properties2},
        {"vkGetPhysicalDeviceMemoryProperties2KHR", memory_properties2},
        {"vkGetBufferMemoryRequirements", buffer_requirements},
        {"vkAllocateMemory", allocate},
        {"vkFreeMemory", free_memory},
        {"vkMapMemory", map},
        {"vkUnmapMemory", unmap},
        {"vkBindBufferMemory", bind_buffer},
        {"vkBeginCommandBuffer", begin},
        {"vkEndCommandBuffer", end},
        {"vkUpdateDescriptorSets", update_sets},
    };
    if (!strncmp(name, "vkCmd", 5)) return (PFN_vkVoidFunction)record;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!strcmp(name, all[i].name)) return (PFN_vkVoidFunction)all[i].function;
    }
    return NULL;
}

PFN_vkVoidFunction vkGetDeviceProcAddr(VkDevice device, const char *name) {
    PFN_vkVoidFunction found = own(name);
    return found ? found : next_of_device(device, name);
}

PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance of, const char *name) {
    PFN_vkVoidFunction found = own(name);
    if (found) return found;
    return next_of_instance ? next_of_instance(of, name) : NULL;
}
